//! fcntl(2), as SQLite calls it for its locks. The first of these functions that applies handles a
//! call; the quickest comes first:
//!
//! | function | the call is | and the function |
//! |---|---|---|
//! | [`fcntl_of`] | F_SETLK on a descriptor that is published | locks the table's descriptor |
//! | [`fcntl_slowly`] | no lock, or on a file that is not ours | goes on as it is |
//! | [`fcntl_slowly`] | F_SETLK on a published read-only descriptor | is refused if it is exclusive, else locks the table's descriptor |
//! | [`fcntl_by_the_table`] | any other lock: the first of a file, one on a file that a parent opened, one whose locks are noted | goes by [`LockTable::target`](crate::guard::cancellation::table::LockTable::target) |
//!
//! A descriptor is in one of these states, which decides what becomes of a lock on it:
//!
//! | state | a lock | an unlock |
//! |---|---|---|
//! | [`Target::Through`] | becomes a lock of the table's descriptor | unlocks that |
//! | [`Target::Through`], read-only | exclusive: EBADF, as from the kernel; shared: becomes a lock of the table's descriptor | unlocks that |
//! | [`Target::AsItIs`] | is SQLite's own | is SQLite's own; the table is informed if it unlocks all |
//! | [`Target::Inherited`] | EIO | does nothing: the lock is the parent's |
//! | [`Target::Unknown`] | that errno | that errno |
//!
//! | an open-file-description lock fails with | then |
//! |---|---|
//! | EINTR | it is made again, as long as signals interrupt it, except F_SETLKW |
//! | any error, for an unlock | it is made once more: SQLite takes the unlock for done, whatever the call returns |
//! | EBADF | the table opens another descriptor, since the application closed the table's |
//! | EAGAIN on a database, because of a POSIX lock of this very process (by lockf(3), for instance) | the file's locks become POSIX locks, as on the stock VFS, and it is made again |

use std::ffi::{c_int, c_void};

use super::{LIBRARIES, Library, fail};
use crate::ffi::no_panic;
use crate::format;
use crate::guard::cancellation;
use crate::guard::cancellation::table::{KnownTarget, Target};
use crate::sys::large_files::Flock;
use crate::sys::{self, Range};

/// An fcntl(2) command that only our function knows, by which to recognise it.
pub(super) const MARK: c_int = 0x6b62_6e02;

/// fcntl(2): SQLite locks or unlocks bytes of a database or a wal-index, asks for a lock, or sets
/// FD_CLOEXEC. Each transaction calls this several times.
pub(super) unsafe extern "C-unwind" fn fcntl_of<const NTH: usize>(
    file: c_int,
    command: c_int,
    argument: *mut c_void,
) -> c_int {
    let library = &LIBRARIES[NTH];
    if command == libc::F_SETLK {
        if let Some(descriptor) = cancellation::table_of(NTH).through(file) {
            // SAFETY: this command comes with a lock.
            return unsafe { lock_by(descriptor, file, argument, library) };
        }
    }
    // SAFETY: SQLite has made this very call.
    unsafe { fcntl_slowly(file, command, argument, library) }
}

/// F_SETLK: makes through the table's `descriptor` the lock or unlock that SQLite asks for on its
/// own.
///
/// # Safety
/// `argument` is a lock.
#[inline(always)]
unsafe fn lock_by(
    descriptor: c_int,
    file: c_int,
    argument: *mut c_void,
    library: &'static Library,
) -> c_int {
    let lock = argument.cast::<Flock>();
    // SAFETY: the caller's promise; an open-file-description lock asks for no process id.
    unsafe {
        (*lock).l_pid = 0;
        match sys::fcntl_lock(descriptor, libc::F_OFD_SETLK, lock) {
            Ok(()) => 0,
            Err(libc::EBADF) => fcntl_by_the_table(file, libc::F_SETLK, argument, library),
            Err(errno) => once_more(descriptor, file, lock, errno, library),
        }
    }
}

/// The rest of [`lock_by`], after the lock has failed with `errno`.
///
/// # Safety
/// `lock` is a lock.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn once_more(
    descriptor: c_int,
    file: c_int,
    lock: *mut Flock,
    errno: c_int,
    library: &'static Library,
) -> c_int {
    // SAFETY: the caller's promise.
    let asked = unsafe { *lock };
    let unlocks = is_unlock(&asked);
    if goes_without(descriptor, file, &asked, errno, library) {
        // SAFETY: the caller's promise.
        return unsafe { fcntl_by_the_table(file, libc::F_SETLK, lock.cast(), library) };
    }
    // SAFETY: the caller's promise.
    let call = || unsafe { sys::fcntl_lock(descriptor, libc::F_OFD_SETLK, lock) };
    until_done(Err(errno), true, unlocks, call).map_or_else(fail, |()| 0)
}

/// Whether to make a lock that was refused with `errno` as a POSIX lock instead: the lock in the
/// way is this program's own POSIX lock, which would not be in the way of a POSIX lock.
fn goes_without(
    descriptor: c_int,
    file: c_int,
    asked: &Flock,
    errno: c_int,
    library: &'static Library,
) -> bool {
    matches!(errno, libc::EAGAIN | libc::EACCES)
        && !is_of_wal_index(asked)
        && no_panic(false, || {
            let found = sys::lock_in_the_way(&descriptor, asked).ok().flatten();
            found.is_some_and(|found| is_the_programs(&found, asked))
                && library.locks.goes_without(file)
        })
}

/// Whether a lock is one of a wal-index. There refusals are normal, and their cause must not be
/// looked for. <https://www.sqlite.org/walformat.html#locks>
fn is_of_wal_index(lock: &Flock) -> bool {
    format::WAL_INDEX_LOCK_BYTES.contains(&lock.l_start)
}

/// Whether the lock `found` in the way of the one that SQLite has `asked` for is a POSIX lock that
/// this program took by itself: it begins before SQLite's bytes. A lock by lockf(3) begins where
/// the program has read to. A lock that begins among SQLite's bytes may be of another copy of
/// SQLite in this process, which must be excluded. <https://www.sqlite.org/howtocorrupt.html> 2.2.1
fn is_the_programs(found: &Flock, asked: &Flock) -> bool {
    let sqlites = match is_of_wal_index(asked) {
        true => format::WAL_INDEX_LOCK_BYTES,
        false => format::LOCK_BYTES,
    };
    sys::is_own_posix_lock(found) && found.l_start < sqlites.start
}

/// Repeats a lock call that was `made`, and returns the last result or its errno. If it
/// `is_repeated`, repeats it as long as signals interrupt it: SQLite would take an interrupted lock
/// for BUSY, and an interrupted unlock for done. If it `unlocks`, repeats it once after any error,
/// since SQLite takes the unlock for done.
fn until_done(
    mut made: Result<(), c_int>,
    is_repeated: bool,
    mut unlocks: bool,
    call: impl Fn() -> Result<(), c_int>,
) -> Result<(), c_int> {
    while let Err(errno) = made {
        if !(is_repeated && errno == libc::EINTR || std::mem::take(&mut unlocks)) {
            break;
        }
        made = call();
    }
    made
}

/// All calls that [`fcntl_of`] does not make itself. It is a tail call with the same arguments, so
/// that [`fcntl_of`] saves and moves no registers.
///
/// # Safety
/// `argument` is what the command asks for.
#[cold]
unsafe extern "C-unwind" fn fcntl_slowly(
    file: c_int,
    command: c_int,
    argument: *mut c_void,
    library: &'static Library,
) -> c_int {
    if command == MARK {
        return MARK;
    }
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite has made this very call.
    let as_it_is = || unsafe { (calls.fcntl)(file, command, argument) };
    if !matches!(command, libc::F_SETLK | libc::F_SETLKW | libc::F_GETLK) {
        return as_it_is();
    }
    match library.locks.known(file) {
        KnownTarget::AsItIs(_calling) => as_it_is(),
        // SAFETY: the caller's promise: this command comes with a lock.
        KnownTarget::ToRead(descriptor) if command == libc::F_SETLK => unsafe {
            if is_exclusive(&*argument.cast::<Flock>()) {
                return fail(libc::EBADF);
            }
            lock_by(descriptor, file, argument, library)
        },
        // SAFETY: the caller's promise.
        _ => unsafe { fcntl_by_the_table(file, command, argument, library) },
    }
}

/// A lock that the table must decide. Each question takes the table's mutex for a moment. The call
/// itself is made under the mutex only before the table has begun.
///
/// # Safety
/// `argument` is a lock.
#[cold]
unsafe extern "C-unwind" fn fcntl_by_the_table(
    file: c_int,
    command: c_int,
    argument: *mut c_void,
    library: &'static Library,
) -> c_int {
    let Some(calls) = library.calls.get() else { return fail(libc::ENOSYS) };
    // SAFETY: SQLite has made this very call.
    let as_it_is = || unsafe { (calls.fcntl)(file, command, argument) };
    if let Some(rc) = no_panic(None, || library.locks.before(as_it_is)) {
        return rc;
    }
    // SAFETY: the caller's promise.
    let lock = unsafe { &mut *argument.cast::<Flock>() };
    let (asked, unlocks) = (*lock, is_unlock(lock));
    let exclusive = command != libc::F_GETLK && is_exclusive(lock);
    let descriptor = match no_panic(Target::Inherited, || library.locks.target(file)) {
        // The kernel's own answer for a read-only descriptor. The table's descriptor could have the
        // lock.
        Target::Through { is_read_only: true, .. } if exclusive => return fail(libc::EBADF),
        Target::Through { descriptor, .. } => descriptor,
        Target::AsItIs { is_ours } => {
            let all = unlocks && lock.l_start == 0 && lock.l_len == 0;
            // Not through the C library, like all our locks: a tool that watches its fcntl would
            // take this for a stock connection's lock.
            let rc = if is_ours && command == libc::F_SETLK && calls.are_libcs() {
                // SAFETY: this command comes with a lock.
                unsafe { sys::fcntl_lock(file, command, lock) }.map_or_else(fail, |()| 0)
            } else {
                as_it_is()
            };
            let error = errno();
            no_panic((), || library.locks.called(file, rc == 0 && all));
            sys::set_errno(error);
            return rc;
        }
        Target::Inherited if unlocks => return 0,
        Target::Inherited => return fail(libc::EIO),
        Target::Unknown(errno) => return fail(errno),
    };
    // The command for open-file-description locks that corresponds to this one.
    let ofd_command = match command {
        libc::F_GETLK => libc::F_OFD_GETLK,
        libc::F_SETLKW => libc::F_OFD_SETLKW,
        _ => libc::F_OFD_SETLK,
    };
    lock.l_pid = 0;
    let locks_by = |descriptor, unlocks| {
        // SAFETY: SQLite's lock, whose process id was set to 0, as this command asks for.
        let call = || match unsafe { (calls.fcntl)(descriptor, ofd_command, argument) } {
            -1 => Err(errno()),
            _ => Ok(()),
        };
        until_done(call(), command != libc::F_SETLKW, unlocks, call)
    };
    let asks = command == libc::F_GETLK;
    let mut made = locks_by(descriptor, unlocks && !asks);
    if made == Err(libc::EBADF) && !asks && no_panic(false, || library.locks.repair(file)) {
        if let Target::Through { descriptor, .. } =
            no_panic(Target::Inherited, || library.locks.target(file))
        {
            made = locks_by(descriptor, false);
        }
    }
    let is_in_its_own_way = match made {
        Ok(()) => {
            let goes_without = || no_panic(false, || library.locks.goes_without(file));
            asks && is_the_programs(lock, &asked) && goes_without()
        }
        Err(errno) => !asks && goes_without(descriptor, file, lock, errno, library),
    };
    if is_in_its_own_way {
        // The kernel has overwritten the question with its answer.
        *lock = asked;
        // SAFETY: the caller's promise.
        return unsafe { fcntl_by_the_table(file, command, argument, library) };
    }
    if made.is_ok() && !asks {
        let range = Range { start: lock.l_start, len: lock.l_len };
        no_panic((), || library.locks.note(file, range, !unlocks));
    }
    made.map_or_else(fail, |()| 0)
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

fn is_unlock(lock: &Flock) -> bool {
    c_int::from(lock.l_type) == c_int::from(libc::F_UNLCK)
}

fn is_exclusive(lock: &Flock) -> bool {
    c_int::from(lock.l_type) == c_int::from(libc::F_WRLCK)
}
