//! Windows. What differs from unix is told in `docs/windows.md`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Component, Path, PathBuf, Prefix};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use windows_sys::Win32::Foundation::{
    ERROR_IO_PENDING, ERROR_LOCK_VIOLATION, ERROR_SHARING_VIOLATION, FILETIME, WAIT_OBJECT_0,
    WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_BASIC_INFO, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_ID_INFO, FILE_INFO_BY_HANDLE_CLASS, FILE_READ_ATTRIBUTES,
    FILE_SHARE_READ, FILE_SHARE_WRITE, FileBasicInfo, FileIdInfo, GetDriveTypeW,
    GetFileInformationByHandle, GetFileInformationByHandleEx, GetVolumePathNameW,
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
use windows_sys::Win32::System::SystemInformation::GetSystemTimePreciseAsFileTime;
use windows_sys::Win32::System::Threading::{
    CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, CreateEventW, CreateWaitableTimerExW,
    EVENT_MODIFY_STATE, INFINITE, OpenEventW, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
    QueryFullProcessImageNameW, SetEvent, SetWaitableTimer, TIMER_ALL_ACCESS,
    WaitForMultipleObjects, WaitForSingleObject,
};

use super::{FileLock, Lockers, Range};

/// What makes two paths the same file: the volume's serial number and the file's index on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    volume: u64,
    index: u128,
}

impl Inode {
    /// For group commit's record, which there is none of here.
    pub(crate) fn numbers(self) -> [u64; 2] {
        [self.volume, self.index as u64 ^ (self.index >> 64) as u64]
    }
}

/// One start of the machine is not told from another here.
pub(crate) fn boot_id() -> Option<u128> {
    None
}

/// The address of what `library`, or the program if it is null, exports by that name; null if it does
/// not. GetProcAddress
///
/// # Safety
/// `library` is null or what LoadLibrary gave.
pub(crate) unsafe fn find_symbol(
    library: *mut std::ffi::c_void,
    name: &CStr,
) -> *mut std::ffi::c_void {
    // SAFETY: the caller's promise; null is the program; a terminated name.
    let found = unsafe {
        let library = if library.is_null() { GetModuleHandleW(std::ptr::null()) } else { library };
        GetProcAddress(library, name.as_ptr().cast())
    };
    found.map_or(std::ptr::null_mut(), |function| function as *mut std::ffi::c_void)
}

/// What a name leads to, which may be a link.
pub(crate) struct Entry {
    pub(crate) inode: Inode,
    /// What it is, in a word, if it is no regular file.
    pub(crate) odd_kind: Option<&'static str>,
    /// The user who owns it, where files have one as a number.
    pub(crate) owner: Option<u32>,
    /// Its length, in bytes.
    pub(crate) len: u64,
    /// So many names it has.
    pub(crate) links: u64,
    pub(crate) rights: Rights,
}

/// Whose a file is, and who may use it: each inherits that from its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights;

/// Opens a file or directory to look at what it is, which shares it with everybody.
fn open_to_look(path: &Path, flags: u32) -> io::Result<File> {
    OpenOptions::new()
        .access_mode(FILE_READ_ATTRIBUTES)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | flags)
        .open(path)
}

/// What `path` leads to.
pub(crate) fn entry_at(path: &Path) -> io::Result<Entry> {
    entry_of(&open_to_look(path, FILE_FLAG_OPEN_REPARSE_POINT)?)
}

/// What `path` leads to in the end.
pub(crate) fn entry_behind(path: &Path) -> io::Result<Entry> {
    entry_of(&open_to_look(path, 0)?)
}

/// What is open.
pub(crate) fn entry_of(file: &File) -> io::Result<Entry> {
    let found = file.metadata()?;
    let kind = found.file_type();
    let odd_kind = if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_symlink() {
        Some("symbolic link")
    } else {
        Some("device")
    };
    let inode = inode_of_file(file)?;
    Ok(Entry { inode, odd_kind, owner: None, len: found.len(), links: 1, rights: Rights })
}

/// Deletes a name.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Whether a file that others have open can be deleted, and they find out by its name.
pub(crate) const REMOVES_OPEN_FILES: bool = false;

/// Whether this process may create files in `directory`, as far as its permissions say: that is only tried.
pub(crate) fn may_create_in(_: &Path) -> bool {
    true
}

/// What is open.
#[doc(alias = "FileIdInfo")]
pub(crate) fn inode_of_file(file: &File) -> io::Result<Inode> {
    // SAFETY: the class is this struct's.
    if let Ok(id) = unsafe { information::<FILE_ID_INFO>(file, FileIdInfo) } {
        let index = u128::from_le_bytes(id.FileId.Identifier);
        return Ok(Inode { volume: id.VolumeSerialNumber, index });
    }
    // FAT has no such ids.
    let found = by_handle(file)?;
    let index = u128::from(found.nFileIndexHigh) << 32 | u128::from(found.nFileIndexLow);
    Ok(Inode { volume: found.dwVolumeSerialNumber.into(), index })
}

/// # Safety
/// `class` is the one that fills in a `T`, a struct of integers.
unsafe fn information<T>(file: &File, class: FILE_INFO_BY_HANDLE_CLASS) -> io::Result<T> {
    let mut found = MaybeUninit::<T>::zeroed();
    // SAFETY: an open handle, and a struct of that size to fill in, for which zeros are a value.
    unsafe {
        let into = found.as_mut_ptr().cast();
        match GetFileInformationByHandleEx(file.as_raw_handle(), class, into, size_of::<T>() as u32)
        {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(found.assume_init()),
        }
    }
}

fn by_handle(file: &File) -> io::Result<BY_HANDLE_FILE_INFORMATION> {
    let mut found = MaybeUninit::zeroed();
    // SAFETY: an open handle, and a struct of integers to fill in.
    unsafe {
        match GetFileInformationByHandle(file.as_raw_handle(), found.as_mut_ptr()) {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(found.assume_init()),
        }
    }
}

/// A name as SQLite passes it: UTF-8.
pub(crate) fn path_from(name: &CStr) -> Cow<'_, Path> {
    match name.to_string_lossy() {
        Cow::Borrowed(name) => Path::new(name).into(),
        Cow::Owned(name) => PathBuf::from(name).into(),
    }
}

/// Links that lead on to another are followed so often.
const MOST_LINKS: u32 = 40;

/// The one name of the file at an absolute path: without links (symbolic links, junctions, drives that
/// stand for directories), short names, and cases other than the file's own. A file that does not exist
/// yet is to be the one that opening the path would create.
///
/// # Errors
/// If its directory does not exist, or this process may not look at it.
#[doc(alias = "GetFinalPathNameByHandleW")]
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let error = match path.canonicalize() {
            Ok(found) => return Ok(simplified(found)),
            Err(error) => error,
        };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(error);
        };
        if !is_absent(&error) {
            return Err(error);
        }
        match path.read_link() {
            Ok(target) => path = directory.join(target),
            Err(_) => return Ok(simplified(directory.canonicalize()?.join(name))),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Without `\\?\`, unless the path needs it, or would with the ending of a journal.
fn simplified(path: PathBuf) -> PathBuf {
    const MOST: usize = 240;
    if path.as_os_str().len() > MOST { path } else { dunce::simplified(&path).to_owned() }
}

/// Reads all of `into`, at an offset.
pub(crate) fn read_exact_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let n = file.seek_read(into, at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[n..];
        at += n as u64;
    }
    Ok(())
}

/// Writes all of `bytes`, at an offset.
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = file.seek_write(bytes, at)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        at += n as u64;
    }
    Ok(())
}

/// What nobody may delete or rename while it is open.
fn open_to_keep(writable: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(writable)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    options
}

/// Opens it, also if somebody has it open for a moment who shares it with nobody, a virus scanner say.
fn open_patiently(options: &OpenOptions, path: &Path) -> io::Result<File> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 1..TRIES {
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION as i32) => {
                std::thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
    options.open(path)
}

/// Opens an existing file to read, write and lock it; never follows a link.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    open_patiently(&open_to_keep(true), path)
}

/// Opens an existing file to read it and to ask for its locks; never follows a link.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open_patiently(&open_to_keep(false), path)
}

/// Creates `path`, which must not exist. It inherits its permissions from its directory, as whatever
/// is beside it has.
pub(crate) fn create_like(path: &Path, _: Rights) -> io::Result<File> {
    open_to_keep(true).create_new(true).open(path)
}

/// Files inherit their rights.
pub(crate) fn give_rights(_: &File, _: Rights, _: Rights) {}

/// An open file, and its locks: a lock belongs to its handle, and is given back in one piece.
pub(crate) struct LockFile {
    file: File,
    /// What is locked, and whether it is shared. Mutex rule: held for system calls that do not wait.
    held: Mutex<Vec<(Range, bool)>>,
}

impl LockFile {
    pub(crate) fn new(file: File) -> Self {
        Self { file, held: Mutex::default() }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Nobody else closes a handle of ours.
    pub(crate) fn is_intact(&self) -> bool {
        true
    }

    /// Nothing that a child inherits.
    pub(crate) fn descriptor(&self) -> i32 {
        -1
    }

    /// Takes an exclusive or shared lock on `range`, or says false if another handle has a lock in its
    /// way. The system gives it back when the handle is closed: at the latest when its process ends.
    #[doc(alias = "LockFileEx")]
    pub(crate) fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        let mut held = self.held.lock();
        if held.contains(&(range, shared)) {
            return Ok(true);
        }
        let locked = self.lock(range, shared)?;
        if locked {
            held.push((range, shared));
        }
        Ok(locked)
    }

    /// Gives back all locks whose last byte is in `range`.
    pub(crate) fn unlock(&self, range: Range) -> io::Result<()> {
        let mut unlocked = Ok(());
        self.held.lock().retain(|(held, _)| {
            let last = Range { start: held.start + held.len - 1, len: 1 };
            let keep = !range.covers(last);
            if !keep {
                unlocked = std::mem::replace(&mut unlocked, Ok(())).and(self.give_back(*held));
            }
            keep
        });
        unlocked
    }

    /// `range`, if another handle has a lock on its first byte. The system does not say who: so the
    /// byte is locked, shared, for as long as it takes to give it back.
    pub(crate) fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        let first = Range { len: 1, ..range };
        let held = self.held.lock();
        let covers =
            |held: &Range| held.start <= first.start && first.start - held.start < held.len;
        // A shared lock can overlap an exclusive one by the same handle.
        if held.iter().any(|(held, _)| covers(held)) {
            return Ok(None);
        }
        if !self.lock(first, true)? {
            return Ok(Some(range));
        }
        self.give_back(first)?;
        Ok(None)
    }

    fn lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        let kind = if shared { 0 } else { LOCKFILE_EXCLUSIVE_LOCK };
        let (low, high) = halves(range.len);
        let mut start = overlapped(range);
        // SAFETY: an open handle, and an offset that lives as long as the call, which does not wait.
        let locked = unsafe {
            let flags = LOCKFILE_FAIL_IMMEDIATELY | kind;
            LockFileEx(self.file.as_raw_handle(), flags, 0, low, high, &raw mut start)
        };
        if locked != 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error().map(|code| code as u32) {
            Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING) => Ok(false),
            _ => Err(error),
        }
    }

    fn give_back(&self, range: Range) -> io::Result<()> {
        let (low, high) = halves(range.len);
        let mut start = overlapped(range);
        // SAFETY: as above.
        match unsafe { UnlockFileEx(self.file.as_raw_handle(), 0, low, high, &raw mut start) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Low and high.
fn halves(number: i64) -> (u32, u32) {
    (number as u32, (number >> 32) as u32)
}

fn overlapped(range: Range) -> OVERLAPPED {
    let mut overlapped = OVERLAPPED::default();
    let (low, high) = halves(range.start);
    overlapped.Anonymous.Anonymous.Offset = low;
    overlapped.Anonymous.Anonymous.OffsetHigh = high;
    overlapped
}

/// Whether [`LockFile::conflicting`] tells the whole range of the lock in the way.
pub(crate) const KERNEL_TELLS_RANGES: bool = false;

/// Only Linux can mount a file over a file.
pub(crate) fn is_mounted_over_itself(_: &Path) -> bool {
    false
}

/// As above.
pub(crate) fn is_mount_point(_: &Path) -> bool {
    false
}

/// There is no such limit.
pub(crate) fn file_size_limit() -> Option<i64> {
    None
}

/// The performance counter in ns, the same for all processes.
#[doc(alias = "QueryPerformanceCounter")]
pub(crate) fn monotonic_ns() -> u64 {
    static PER_SECOND: OnceLock<u64> = OnceLock::new();
    let per_second = *PER_SECOND.get_or_init(|| {
        let mut frequency = 0;
        // SAFETY: a place for the number; it does not fail since Windows XP.
        unsafe { QueryPerformanceFrequency(&raw mut frequency) };
        frequency.max(1) as u64
    });
    let mut count = 0;
    // SAFETY: as above.
    unsafe { QueryPerformanceCounter(&raw mut count) };
    (u128::from(count as u64) * 1_000_000_000 / u128::from(per_second)) as u64
}

/// By what processes that wait for a change of a word, and those that change it, meet: an event for
/// each word, whose name is made of the file's identity.
pub(crate) struct Words {
    name: String,
    /// Those that were waited for, by the word's offset.
    events: Mutex<HashMap<usize, Arc<OwnedHandle>>>,
}

impl Words {
    /// Those of a file. No event is made yet.
    pub(crate) fn map(file: &File, _: &Path, _: usize) -> io::Result<Self> {
        let Inode { volume, index } = inode_of_file(file)?;
        // For services and the sessions of all users.
        let name = format!("Global\\kanban-vfs-{volume:x}-{index:x}-");
        Ok(Self { name, events: Mutex::default() })
    }

    fn name_of(&self, at: usize) -> Vec<u16> {
        wide(OsStr::new(&format!("{}{at}", self.name)))
    }

    /// Sleeps until somebody wakes the word at `at`, at most `limit`: false if that is over. May return
    /// early; what was woken since the last wait returns at once. An error if somebody else has made
    /// the event his own.
    #[doc(alias = "CreateEventW")]
    pub(crate) fn wait(&self, at: usize, _: u32, limit: Duration) -> io::Result<bool> {
        let known = self.events.lock().get(&at).map(Arc::clone);
        let Some(event) = known else {
            let name = self.name_of(at);
            // SAFETY: a terminated name. It is reset by whoever it wakes, and is not set.
            let event = owned(unsafe { CreateEventW(std::ptr::null(), 0, 0, name.as_ptr()) })?;
            self.events.lock().insert(at, Arc::new(event));
            // Who woke the word before there was an event is seen by a look at the word.
            return Ok(true);
        };
        wait_for(&event, limit)
    }

    /// Wakes whoever sleeps on the word at `at`, or will next.
    #[doc(alias = "SetEvent")]
    pub(crate) fn wake(&self, at: usize) {
        let name = self.name_of(at);
        // SAFETY: a terminated name. Without an event, or the right to set it, nobody is woken, who
        // looks every few ms anyway.
        if let Ok(event) = owned(unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr()) }) {
            // SAFETY: an open handle of an event.
            unsafe { SetEvent(event.as_raw_handle()) };
        }
    }
}

/// Waits for an event, at most `limit`: by a timer of its own, since the timeouts of the wait functions
/// are rounded to the system's tick, of 15.6 ms mostly. False if that is over.
fn wait_for(event: &OwnedHandle, limit: Duration) -> io::Result<bool> {
    thread_local! {
        /// `None` before Windows 10 1803.
        static TIMER: Option<OwnedHandle> = {
            let flags = CREATE_WAITABLE_TIMER_HIGH_RESOLUTION;
            // SAFETY: without a name.
            owned(unsafe {
                CreateWaitableTimerExW(std::ptr::null(), std::ptr::null(), flags, TIMER_ALL_ACCESS)
            })
            .ok()
        };
    }
    let event = event.as_raw_handle();
    let waited = TIMER.try_with(|timer| {
        let timer = timer.as_ref()?.as_raw_handle();
        // A negative time is one from now, in units of 100 ns.
        let due = -i64::try_from(limit.as_nanos() / 100).unwrap_or(i64::MAX).max(1);
        // SAFETY: open handles, of a timer of this thread and of an event, and a time to read.
        unsafe {
            let set = SetWaitableTimer(timer, &raw const due, 0, None, std::ptr::null(), 0);
            let both = [event, timer];
            (set != 0).then(|| WaitForMultipleObjects(2, both.as_ptr(), 0, INFINITE))
        }
    });
    let waited = waited.ok().flatten().unwrap_or_else(|| {
        let ms = u32::try_from(limit.as_millis()).unwrap_or(INFINITE - 1).max(1);
        // SAFETY: an open handle.
        unsafe { WaitForSingleObject(event, ms) }
    });
    const TIMER_WAS_FIRST: u32 = WAIT_OBJECT_0 + 1;
    match waited {
        WAIT_OBJECT_0 => Ok(true),
        TIMER_WAS_FIRST | WAIT_TIMEOUT => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A handle that a call has made, or its error.
fn owned(handle: *mut std::ffi::c_void) -> io::Result<OwnedHandle> {
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and is nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

/// Nothing is inherited that keeps a lock: a handle's go with the process that made them.
pub(crate) fn is_gone(_: u32, _: Duration) -> bool {
    false
}

/// Windows does not tell who has a lock.
pub(crate) fn with_lock(_: &[Inode], _: impl Fn(Inode, FileLock) -> bool, _: Duration) -> Lockers {
    Lockers { found: Vec::new(), hidden: 0, is_partial: true }
}

/// As [`with_lock`].
pub(crate) fn has_flock(_: Inode) -> bool {
    false
}

/// Whether a lock has failed because there are no locks.
pub(crate) fn has_no_locks(_: &io::Error) -> bool {
    false
}

/// As [`with_lock`].
pub(crate) fn may_be_locked(_: &[Inode], _: bool) -> bool {
    false
}

/// The name of a process's program, as far as this process may know it.
#[doc(alias = "QueryFullProcessImageNameW")]
pub(crate) fn program_of(pid: u32) -> Option<String> {
    let mut path = [0_u16; 1024];
    let mut n = path.len() as u32;
    // SAFETY: an id, which may be nobody's.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) }).ok()?;
    // SAFETY: an open handle, and room for so many characters.
    let rc = unsafe {
        QueryFullProcessImageNameW(process.as_raw_handle(), 0, path.as_mut_ptr(), &raw mut n)
    };
    let path = String::from_utf16_lossy(path.get(..n as usize).filter(|_| rc != 0)?);
    Some(Path::new(&path).file_name()?.to_string_lossy().into_owned())
}

/// This process's id.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// A name, as [`stat`] takes it.
#[derive(Debug)]
pub(crate) struct Name(PathBuf);

impl Name {
    /// `None` if there is a NUL in it.
    pub(crate) fn new(name: &OsStr) -> Option<Self> {
        (!name.as_encoded_bytes().contains(&0)).then(|| Self(name.into()))
    }
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) inode: Inode,
    /// Hard links.
    pub(crate) links: u64,
    /// When it last changed, in 100 ns since 1601; 0 where the file system does not note it.
    changed: i64,
}

impl Found {
    /// Whether another change, now, would leave another time.
    pub(crate) fn was_changed_a_while_ago(&self) -> bool {
        const TICKS: i64 = 400_000;
        let mut now = FILETIME::default();
        // SAFETY: a struct to fill in.
        unsafe { GetSystemTimePreciseAsFileTime(&raw mut now) };
        let now = i64::from(now.dwHighDateTime) << 32 | i64::from(now.dwLowDateTime);
        self.changed != 0 && now > self.changed.saturating_add(TICKS)
    }
}

/// What `name` leads to, which may be a link.
pub(crate) fn stat(name: &Name) -> io::Result<Found> {
    let file = open_to_look(&name.0, FILE_FLAG_OPEN_REPARSE_POINT)?;
    // SAFETY: the class is this struct's.
    let changed = unsafe { information::<FILE_BASIC_INFO>(&file, FileBasicInfo) }?.ChangeTime;
    let links = by_handle(&file)?.nNumberOfLinks.into();
    Ok(Found { inode: inode_of_file(&file)?, links, changed })
}

/// A directory, by its name: an open one could not be renamed.
#[derive(Debug)]
pub(crate) struct Directory(Name);

impl Directory {
    /// `None` if there is a NUL in its name.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        Name::new(path.as_os_str()).map(Self)
    }

    /// Whether it is the one that `path` leads to.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.0.0 == path
    }

    pub(crate) fn stat(&self) -> io::Result<Found> {
        stat(&self.0)
    }

    /// Whether it is the one that its name leads to, found to be so by [`Self::stat`].
    pub(crate) fn is_in_place(&self, _: &Found) -> bool {
        true
    }

    /// Whether names may lead elsewhere than when it was opened, though nobody has moved anything.
    pub(crate) fn is_seen_from_elsewhere(&self) -> bool {
        false
    }

    /// What the last part of `name` leads to in it.
    pub(crate) fn stat_within(&self, name: &Name) -> io::Result<Found> {
        stat(name)
    }
}

/// Cuts the file at `path`, which must be `inode`, to no bytes.
pub(crate) fn empty(path: &Path, inode: Inode) -> io::Result<()> {
    let file = open_to_lock(path)?;
    if inode_of_file(&file)? != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    file.set_len(0)
}

/// Whether an error says that there is nothing by a name.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The type of the file system that `path` lies on, by the numbers of statfs(2): that of SMB for every
/// network's, and 0 for all others.
pub(crate) fn file_system_type(path: &Path) -> io::Result<u64> {
    const DRIVE_REMOTE: u32 = 4;
    const SMB2: u64 = 0xfe53_4d42;
    let is_unc = match path.components().next() {
        Some(Component::Prefix(prefix)) => {
            matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
        }
        _ => false,
    };
    // SAFETY: a terminated name.
    let is_network = is_unc || unsafe { GetDriveTypeW(volume_of(path)?.as_ptr()) } == DRIVE_REMOTE;
    Ok(if is_network { SMB2 } else { 0 })
}

/// Where the volume that `path` lies on is mounted, terminated.
fn volume_of(path: &Path) -> io::Result<Vec<u16>> {
    let path = wide(path.as_os_str());
    let mut volume = vec![0; path.len() + 2];
    // SAFETY: a terminated name, and room for so many characters.
    let rc = unsafe { GetVolumePathNameW(path.as_ptr(), volume.as_mut_ptr(), volume.len() as u32) };
    if rc == 0 { Err(io::Error::last_os_error()) } else { Ok(volume) }
}

/// Where the volume that `path` lies on is mounted, and what it is.
pub(crate) fn mount_of(path: &Path) -> Option<(String, String)> {
    let volume = volume_of(path).ok()?;
    let volume = String::from_utf16_lossy(&volume);
    Some((volume.trim_end_matches('\0').to_owned(), "a network drive".to_owned()))
}

/// Whether a file in `directory` that is opened twice is one file. Only asked of file systems that serve
/// others', which have another type here.
pub(crate) fn shares_memory(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unc_paths_are_network_file_systems() {
        let kind = |path: &str| file_system_type(Path::new(path)).expect("a type");
        for path in [r"\\server\share\board.db", r"\\?\UNC\server\share\board.db"] {
            assert_ne!(kind(path), 0, "{path}");
        }
        let here = std::env::temp_dir();
        for path in [here.clone(), here.canonicalize().expect("it exists")] {
            assert_eq!(kind(path.to_str().expect("UTF-8")), 0, "{path:?}");
        }
    }

    #[test]
    fn locks_belong_to_handles_and_are_given_back_by_their_last_byte() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("locked");
        std::fs::write(&path, [0; 16]).expect("it can be written");
        let open = || LockFile::new(open_to_lock(&path).expect("it opens"));
        let (a, b) = (open(), open());
        let lock = |file: &LockFile, start, len, shared| {
            file.try_lock(Range { start, len }, shared).expect("it can be tried")
        };
        let is_free = |file: &LockFile, start| {
            file.conflicting(Range { start, len: 1 }).expect("it can be tried").is_none()
        };
        // The queue's: the waiters' byte and the write lock in one, then a shared one over it.
        assert!(lock(&a, 100, 1 << 40, false));
        assert!(!lock(&b, 101, 1 << 50, false) && !lock(&b, 100, 1, true));
        assert!(is_free(&a, 101) && !is_free(&b, 101));
        assert!(!lock(&b, 101, 1, false), "the look of its owner has not given it back");
        assert!(lock(&a, 100, 1, true), "over its own");
        a.unlock(Range { start: 100, len: 1 }).expect("it is locked");
        assert!(!is_free(&b, 100) && !is_free(&b, 101), "only the shared one was given back");
        assert!(lock(&a, 100, 1, true));
        a.unlock(Range { start: 101, len: 0 }).expect("it is locked");
        assert!(is_free(&b, 101) && lock(&b, 101, 5, false), "the exclusive one, as a whole");
        assert!(lock(&b, 100, 1, true) && !lock(&b, 100, 1, false), "and not the shared one");
        drop(b);
        assert!(is_free(&a, 101), "a handle that is closed gives back all");
    }

    #[test]
    fn whoever_does_not_share_a_file_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("scanned");
        std::fs::write(&path, [0; 16]).expect("it can be written");
        let scanner = OpenOptions::new().read(true).share_mode(0).open(&path).expect("it opens");
        assert!(open_to_keep(true).open(&path).is_err(), "one attempt is not enough");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(12));
                drop(scanner);
            });
            open_to_lock(&path).expect("it opens when the scanner is done");
        });
    }

    #[test]
    fn words_wake_across_handles() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("words");
        std::fs::write(&path, [0; 16]).expect("it can be written");
        let words =
            || Words::map(&File::open(&path).expect("it opens"), &path, 16).expect("its identity");
        let (sleeper, waker) = (words(), words());
        let ms = Duration::from_millis;
        assert!(sleeper.wait(8, 0, ms(1)).expect("an event"), "the first time, it looks again");
        assert!(!sleeper.wait(8, 0, ms(1)).expect("an event"));
        waker.wake(4);
        assert!(!sleeper.wait(8, 0, ms(1)).expect("an event"), "another word");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(ms(20));
                waker.wake(8);
            });
            assert!(sleeper.wait(8, 0, Duration::from_secs(60)).expect("an event"));
        });
    }

    #[test]
    fn the_clock_goes_on() {
        let ns = monotonic_ns();
        std::thread::sleep(Duration::from_millis(50));
        assert!((40_000_000..60_000_000_000).contains(&(monotonic_ns() - ns)));
    }
}
