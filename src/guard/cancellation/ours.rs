//! Which files are ours: the databases that this process has open through the VFS, and their wal-indexes.
//!
//! Only their locks change. All other files of the process keep POSIX locks, and the stock VFS's behaviour.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::sys::Inode;

/// The databases that are open through the VFS.
#[derive(Clone, Default)]
pub(super) struct Ours(HashMap<Inode, Database>);

#[derive(Clone, Default)]
struct Database {
    connections: usize,
    /// The names by which they have opened it.
    names: Vec<PathBuf>,
    /// Its wal-index, while SQLite has that open.
    wal_index: Option<WalIndex>,
}

/// A wal-index that SQLite has open.
#[derive(Clone, Copy)]
pub(super) struct WalIndex {
    inode: Inode,
    /// The descriptor, if SQLite was seen to open it.
    by: Option<RawFd>,
}

impl WalIndex {
    /// SQLite has just opened it by this descriptor.
    pub(super) fn opened(inode: Inode, by: RawFd) -> Self {
        Self { inode, by: Some(by) }
    }
}

/// A database and its wal-index.
pub(super) type Pair = [Option<Inode>; 2];

impl Ours {
    /// Whether a file is one of these databases or wal-indexes.
    pub(super) fn contains(&self, inode: Inode) -> bool {
        self.0.contains_key(&inode) || self.is_wal_index(inode)
    }

    /// Whether there is no database.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a file is the wal-index of one of these databases.
    pub(super) fn is_wal_index(&self, inode: Inode) -> bool {
        self.wal_indexes().any(|known| known.inode == inode)
    }

    fn wal_indexes(&self) -> impl Iterator<Item = WalIndex> {
        self.0.values().filter_map(|known| known.wal_index)
    }

    /// Whether SQLite was seen to open a wal-index by this descriptor.
    pub(super) fn has_opened(&self, wal_index: Inode, by: RawFd) -> bool {
        self.wal_indexes().any(|known| known.inode == wal_index && known.by == Some(by))
    }

    /// Whether SQLite has any wal-index open.
    pub(super) fn has_wal_index(&self) -> bool {
        self.0.values().any(|known| known.wal_index.is_some())
    }

    /// One more connection to `database`, by the name `path`. Returns what is ours of it. `find_wal_index` looks for a wal-index that
    /// SQLite may have open already; it is not called if that is known.
    pub(super) fn joined(
        &mut self,
        database: Inode,
        path: &Path,
        find_wal_index: impl FnOnce() -> Option<Inode>,
    ) -> Pair {
        let known = self.0.entry(database).or_default();
        known.connections += 1;
        if !known.names.iter().any(|name| name == path) {
            known.names.push(path.to_owned());
        }
        let found = || find_wal_index().map(|inode| WalIndex { inode, by: None });
        known.wal_index = known.wal_index.or_else(found);
        [Some(database), known.wal_index.map(|known| known.inode)]
    }

    /// One connection less. Returns what is not ours any more.
    pub(super) fn left(&mut self, database: Inode) -> Pair {
        // A forked child does not know what its parent has opened.
        let Some(known) = self.0.get_mut(&database) else { return [None; 2] };
        known.connections -= 1;
        if known.connections > 0 {
            return [None; 2];
        }
        let wal_index = self.0.remove(&database).and_then(|known| known.wal_index);
        [Some(database), wal_index.map(|known| known.inode)]
    }

    /// What is open through the VFS and another copy of SQLite is ours, too.
    pub(super) fn absorb(&mut self, other: Self) {
        for (database, Database { connections, names, wal_index }) in other.0 {
            let known = self.0.entry(database).or_default();
            known.names.extend(names);
            known.connections = known.connections.max(connections);
            // The descriptor is another copy's.
            let wal_index = wal_index.map(|known| WalIndex { by: None, ..known });
            known.wal_index = known.wal_index.or(wal_index);
        }
    }

    /// SQLite has opened the wal-index of `database`, if that is ours.
    pub(super) fn opened_wal_index(&mut self, database: Inode, wal_index: WalIndex) {
        if let Some(known) = self.0.get_mut(&database) {
            known.wal_index = Some(wal_index);
        }
    }

    /// SQLite has opened the wal-index of a database of ours that has this name, if there is one, and nobody can tell
    /// which file the name leads to.
    pub(super) fn opened_wal_index_beside(&mut self, database: &Path, wal_index: WalIndex) {
        let has_name = |known: &&mut Database| known.names.iter().any(|name| name == database);
        if let Some(known) = self.0.values_mut().find(has_name) {
            known.wal_index = Some(wal_index);
        }
    }

    /// SQLite has closed a file, which may be a wal-index. SQLite deletes it when it leaves WAL mode, and then another
    /// file may get its inode number.
    pub(super) fn forget_wal_index(&mut self, inode: Inode) {
        for known in self.0.values_mut() {
            known.wal_index.take_if(|known| known.inode == inode);
        }
    }

    /// All files that were ours. None is any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Inode> {
        let both = |(database, known): (Inode, Database)| {
            [Some(database), known.wal_index.map(|known| known.inode)]
        };
        self.0.drain().flat_map(both).flatten()
    }
}
