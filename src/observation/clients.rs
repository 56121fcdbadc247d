//! Which processes have a database open, and by which VFS.
//!
//! A process's open files, and the kind of its locks, show this; proc(5) tells both. None of the files is opened.
//!
//! | a process with the database, its WAL, its wal-index or its journal open, and with | uses |
//! |---|---|
//! | the sidecar open, or an open-file-description lock on one of these | this VFS |
//! | a lock of the other kind on one of these | SQLite's own VFS |
//! | no such lock, and their directory open by O_PATH | this VFS, which opens the directory with the database; or SQLite's own, between transactions, in a process that uses another database there by this VFS |
//! | none of these | unknown: a stock client in a rollback mode has no lock between its transactions; a child of fork(2) inherited the descriptors, but no lock; another program copies the file |

use super::processes::ProcessInfo;
use crate::sys::{Inode, OpenFile};

/// A process that has a database open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The process.
    pub process: ProcessInfo,
    /// By which VFS it has the database open.
    pub vfs: ClientVfs,
}

/// By which VFS a process has a database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientVfs {
    /// This one.
    Kanban,
    /// SQLite's own: it is a stock client.
    Stock,
    /// Both: it also has a connection that does not use this VFS. That connection's locks are dropped when the process closes
    /// any descriptor of the file.
    Both,
    /// It has no file of this VFS open, and no lock now: an idle stock client, a child that inherited the descriptor, or a
    /// program that does not use SQLite.
    Unknown,
}

/// By which VFS a process with these open files uses a database with these files; `None` if it does not have the database open.
pub(super) fn judge(
    open: &[OpenFile],
    its_own: &[Inode],
    sidecar: Option<Inode>,
    directory: Option<Inode>,
) -> Option<ClientVfs> {
    let is_its_own = |file: &&OpenFile| its_own.contains(&file.inode) && !file.is_to_look;
    if !open.iter().any(|file| is_its_own(&file)) {
        return None;
    }
    let has_lock = |is_ofd| {
        let locks = open.iter().filter(is_its_own).flat_map(|file| &file.locks);
        locks.into_iter().any(|lock| lock.is_ofd == is_ofd)
    };
    let has = |inode: Option<Inode>, is_to_look| {
        let is_it = |file: &OpenFile| Some(file.inode) == inode && file.is_to_look == is_to_look;
        open.iter().any(is_it)
    };
    let is_stock = has_lock(false);
    // The directory may be open for another database.
    let is_ours = has(sidecar, false) || has_lock(true) || !is_stock && has(directory, true);
    Some(match (is_ours, is_stock) {
        (true, false) => ClientVfs::Kanban,
        (true, true) => ClientVfs::Both,
        (false, true) => ClientVfs::Stock,
        (false, false) => ClientVfs::Unknown,
    })
}
