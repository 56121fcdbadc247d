//! Tables of methods: ours over the base's. From the file that it is called for, a method of ours
//! finds the base's table and our state.
//!
//! | bytes of a file's memory | hold |
//! |---|---|
//! | from 0 | the base's file; `pMethods`, its first field, leads to a [`Methods`] |
//! | from [`state_offset`] | the address of our state |

use std::ffi::c_int;

use super::inherited;
use crate::ffi::{complete, sqlite3_file, sqlite3_io_methods};
use crate::sys::fork::ForkMutex;

/// The field behind the base's file: the address of the state of our methods.
pub(super) type StateSlot = *mut ();

/// The size of a file of ours over one of the base's, in bytes.
pub(crate) fn size_with_state(base: c_int) -> c_int {
    c_int::try_from(state_offset(base) + size_of::<StateSlot>()).unwrap_or(c_int::MAX)
}

/// The offset of our state's address in a file over a base's file of that size.
pub(super) fn state_offset(base: c_int) -> usize {
    usize::try_from(base).unwrap_or(0).next_multiple_of(align_of::<StateSlot>())
}

/// A method table of ours. `ours` is first, so that a file's `pMethods` is its address.
#[repr(C)]
pub(super) struct Methods {
    pub(super) ours: sqlite3_io_methods,
    /// A complete copy: null for methods that the base's version does not have.
    pub(super) base: sqlite3_io_methods,
    /// The base's table itself, to restore it.
    base_table: *const sqlite3_io_methods,
    state_offset: usize,
    pub(super) kind: FileKind,
}

// SAFETY: the contents never change, and the pointer is only put back into a file.
unsafe impl Send for Methods {}
// SAFETY: the contents never change, so any number of threads may read them.
unsafe impl Sync for Methods {}

/// Which files a table is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Database,
    /// A database on a file system on which WAL mode is refused.
    WithoutWal,
    /// A WAL, a journal or a statement journal.
    Watched,
    /// The WAL of a database with group commit.
    Wal,
    SuperJournal,
    /// A database that was not opened.
    Refused,
}

/// All tables that were made. Locked for a look-up, and while a thread forks. SQLite is not called
/// meanwhile.
static METHOD_TABLES: ForkMutex<Vec<&'static Methods>> = ForkMutex::new(Vec::new());

/// Keeps other threads from making tables until the result is dropped.
#[cfg(unix)]
pub(super) fn hold_for_fork() -> impl std::any::Any {
    METHOD_TABLES.lock()
}

impl Methods {
    /// The table in which `ours` is put over the base's table. There is one for each base table,
    /// offset and kind.
    ///
    /// # Safety
    /// `base` is the table of a file that its VFS has just opened.
    pub(super) unsafe fn over(
        base: *const sqlite3_io_methods,
        state_offset: usize,
        kind: FileKind,
        ours: impl FnOnce(&sqlite3_io_methods) -> sqlite3_io_methods,
    ) -> &'static Self {
        // SAFETY: a VFS keeps the tables of its open files, and never changes them.
        let complete = unsafe { complete(base) };
        Self::made_once(ours(&complete), complete, base, state_offset, kind)
    }

    /// A table with these fields, or the one that was already made for this base. `base_table` is
    /// null for files without a base. Tables live for ever.
    pub(super) fn made_once(
        ours: sqlite3_io_methods,
        base: sqlite3_io_methods,
        base_table: *const sqlite3_io_methods,
        state_offset: usize,
        kind: FileKind,
    ) -> &'static Self {
        let mut tables = METHOD_TABLES.lock();
        let is_it = |known: &&&Self| {
            known.base_table == base_table
                && known.state_offset == state_offset
                && known.kind == kind
        };
        if let Some(known) = tables.iter().find(is_it) {
            return known;
        }
        let made = Box::leak(Box::new(Self { ours, base, base_table, state_offset, kind }));
        tables.push(made);
        made
    }
}

/// A file that has a table of ours.
#[derive(Clone, Copy)]
pub(super) struct Interposed {
    pub(super) file: *mut sqlite3_file,
    pub(super) methods: &'static Methods,
}

impl Interposed {
    /// # Safety
    /// `file` is open and has one of our tables.
    pub(super) unsafe fn of(file: *mut sqlite3_file) -> Self {
        // SAFETY: the caller's promise: pMethods is the address of the first field of a `Methods`, which lives for ever.
        Self { file, methods: unsafe { &*(*file).pMethods.cast::<Methods>() } }
    }

    /// For xClose: restores the base's methods, and forgets the file, so that a forked child does
    /// not write to its memory.
    ///
    /// # Safety
    /// `file` is open, has one of our tables, and is about to be closed.
    pub(super) unsafe fn closing(file: *mut sqlite3_file) -> Self {
        inherited::closing(file);
        // SAFETY: the caller's promise; a file's methods may be exchanged while none of them runs for it but ours.
        unsafe {
            let this = Self::of(file);
            (*file).pMethods = this.methods.base_table;
            this
        }
    }

    /// Puts our methods in front of the base's, and the address of `state` behind the file.
    ///
    /// # Safety
    /// The file is memory of [`size_with_state`] bytes over the base for which the table's offset
    /// was made. The methods expect a state of that type.
    pub(super) unsafe fn begin<T>(self, state: Box<T>) {
        // SAFETY: the caller's promise: there is room for the address, and the file is open.
        unsafe {
            self.slot().write(Box::into_raw(state).cast());
            (*self.file).pMethods = &raw const self.methods.ours;
        }
    }

    /// The place of the state's address.
    ///
    /// # Safety
    /// The file is memory of [`size_with_state`] bytes over the base for which the table's offset
    /// was made.
    unsafe fn slot(self) -> *mut StateSlot {
        // SAFETY: the caller's promise; SQLite aligns files to 8 bytes.
        unsafe { self.file.cast::<u8>().add(self.methods.state_offset).cast() }
    }

    /// The state of an open file, or of one that is about to be closed.
    ///
    /// # Safety
    /// [`Self::begin`] was called for the file, with a state of that type, which is not freed.
    pub(super) unsafe fn state<T>(self) -> *mut T {
        // SAFETY: the caller's promise: the slot holds the address of a boxed `T`.
        unsafe { (*self.slot()).cast() }
    }
}

/// Calls the base's own method on an [`Interposed`] file; fails with `$missing` if the base does
/// not have it.
macro_rules! call {
    ($interposed:expr, $method:ident, $missing:expr $(, $arg:expr)*) => {
        match $interposed.methods.base.$method {
            // SAFETY: the base has opened the file, and gets what its own method asks for: what
            // SQLite passed to our method in front of it, or what lives in the caller.
            Some(method) => unsafe { method($interposed.file, $($arg),*) },
            None => $missing,
        }
    };
}
pub(super) use call;

#[cfg(test)]
mod tests {
    use super::*;

    /// The state's address lies behind the base's file, is aligned, and has room.
    #[test]
    fn the_state_lies_behind_the_bases_file() {
        for base in 0..40 {
            let offset = state_offset(base);
            assert!((base as usize..base as usize + 8).contains(&offset), "{base}: {offset}");
            assert_eq!(offset % align_of::<StateSlot>(), 0);
            assert_eq!(size_with_state(base) as usize, offset + size_of::<StateSlot>());
        }
    }
}
