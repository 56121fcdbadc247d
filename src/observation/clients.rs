//! Who has a database open, and by which VFS.
//!
//! It is told by what a process has open, and by the kind of its locks, as proc(5) shows them. None of the files is opened.
//!
//! | a process with the database, its WAL, its wal-index or its journal open, and with | uses |
//! |---|---|
//! | the sidecar open, or an open-file-description lock on one of these, or their directory open only to look at it | this VFS, which has the last of these from the open on |
//! | a lock of the other kind on one of these | SQLite's own VFS |
//! | neither | nothing is known: a stock client has no lock in a rollback mode between its transactions; a child of fork(2) has inherited the descriptors, but no lock; another program copies the file |

use std::path::Path;
use std::time::Duration;

use crate::format::{self, JOURNAL_SUFFIX, WAL_INDEX_SUFFIX, WAL_SUFFIX};
use crate::lock::keepers::{self, Process};
use crate::lock::sidecar;
use crate::sys::{self, Inode, OpenFile};

/// A process that has a database open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The process.
    pub process: Process,
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
    /// Both: it also has a connection past this VFS, whose locks closing any descriptor of the file cancels.
    Both,
    /// It has nothing of this VFS, and no lock at the moment: an idle stock client, a child that has inherited the
    /// descriptor, or a program that is no client of SQLite's.
    Unknown,
}

/// The processes that have a database open, as far as the process that asks may look into them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clients {
    /// In the order of their process ids.
    pub clients: Vec<Client>,
    /// At least so many processes could not be looked into: that takes their user, or root.
    pub hidden: usize,
    /// Whether more were left out, because time ran out or there is no `/proc`.
    pub is_partial: bool,
}

impl Clients {
    /// Why there may be more, and who could see them; `None` if these are all.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        keepers::missing(self.hidden, self.is_partial)
    }
}

/// The processes that have `database` open. Looks into other processes for at most `limit`.
pub(super) fn of(database: &Path, limit: Duration) -> Clients {
    let inode = |path: &Path| sys::entry_at(path).ok().map(|found| found.inode);
    let beside = |suffix| inode(&format::beside(database, suffix));
    let its_own: Vec<_> =
        [inode(database), beside(WAL_SUFFIX), beside(WAL_INDEX_SUFFIX), beside(JOURNAL_SUFFIX)]
            .into_iter()
            .flatten()
            .collect();
    let sidecar = inode(&sidecar::path_of(database));
    let directory = database.parent().and_then(inode);
    let all: Vec<_> = its_own.iter().copied().chain(sidecar).chain(directory).collect();
    let seen = sys::with_open(&all, limit);
    let mut clients: Vec<_> = seen
        .found
        .into_iter()
        .filter_map(|(pid, open)| {
            let vfs = judge(&open, &its_own, sidecar, directory)?;
            Some(Client { process: Process::of(pid), vfs })
        })
        .collect();
    clients.sort_by_key(|client| client.process.pid);
    Clients { clients, hidden: seen.hidden, is_partial: seen.is_partial }
}

/// By which VFS a process with these open files uses a database with these files; `None` if it does not have it open.
fn judge(
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
    let is_ours = has(sidecar, false) || has(directory, true) || has_lock(true);
    Some(match (is_ours, has_lock(false)) {
        (true, false) => ClientVfs::Kanban,
        (true, true) => ClientVfs::Both,
        (false, true) => ClientVfs::Stock,
        (false, false) => ClientVfs::Unknown,
    })
}
