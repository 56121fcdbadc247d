//! Which files are ours: the databases that this process has open through the VFS, and their wal-indexes.
//!
//! Only the locks of these files change. All other files of the process keep POSIX locks and the stock VFS's
//! behaviour.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::sys::Inode;

/// The databases that are open through the VFS.
#[derive(Clone, Default)]
pub(super) struct Ours(HashMap<Inode, Database>);

#[derive(Clone, Default)]
struct Database {
    connections: usize,
    /// The names by which connections opened it.
    names: Vec<PathBuf>,
    /// Its wal-index, while SQLite has it open.
    wal_index: Option<Inode>,
}

/// A database and its wal-index.
pub(super) type Pair = [Option<Inode>; 2];

impl Ours {
    /// Whether a file is one of these databases or wal-indexes.
    pub(super) fn contains(&self, inode: Inode) -> bool {
        self.0.contains_key(&inode) || self.0.values().any(|known| known.wal_index == Some(inode))
    }

    /// Whether there is no database.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether SQLite has any wal-index open.
    pub(super) fn has_wal_index(&self) -> bool {
        self.0.values().any(|known| known.wal_index.is_some())
    }

    /// Counts one more connection to `database`, by the name `path`. Returns which of its files are ours.
    /// `find_wal_index` looks for a wal-index that SQLite may have open already; it is not called if the wal-index is
    /// known.
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
        known.wal_index = known.wal_index.or_else(find_wal_index);
        [Some(database), known.wal_index]
    }

    /// Counts one connection less. Returns what is not ours any more.
    pub(super) fn left(&mut self, database: Inode) -> Pair {
        // A forked child does not know which databases its parent opened.
        let Some(known) = self.0.get_mut(&database) else { return [None; 2] };
        known.connections -= 1;
        if known.connections > 0 {
            return [None; 2];
        }
        [Some(database), self.0.remove(&database).and_then(|known| known.wal_index)]
    }

    /// Adds what is open through the VFS and another copy of SQLite: it is ours, too.
    pub(super) fn absorb(&mut self, other: Self) {
        for (database, Database { connections, names, wal_index }) in other.0 {
            let known = self.0.entry(database).or_default();
            known.names.extend(names);
            known.connections = known.connections.max(connections);
            known.wal_index = known.wal_index.or(wal_index);
        }
    }

    /// SQLite has opened the wal-index of `database`: remembers it if that database is ours.
    pub(super) fn opened_wal_index(&mut self, database: Inode, wal_index: Inode) {
        if let Some(known) = self.0.get_mut(&database) {
            known.wal_index = Some(wal_index);
        }
    }

    /// The same if stat(2) does not tell which file the database is, for the database of ours that was opened by this
    /// name, if there is one.
    pub(super) fn opened_wal_index_beside(&mut self, database: &Path, wal_index: Inode) {
        let has_name = |known: &&mut Database| known.names.iter().any(|name| name == database);
        if let Some(known) = self.0.values_mut().find(has_name) {
            known.wal_index = Some(wal_index);
        }
    }

    /// SQLite has closed a file, which may be a wal-index: forgets it. SQLite deletes a wal-index when it leaves WAL
    /// mode, and then another file may get its inode number.
    pub(super) fn forget_wal_index(&mut self, inode: Inode) {
        for known in self.0.values_mut() {
            known.wal_index.take_if(|known| *known == inode);
        }
    }

    /// Returns all files that were ours, and forgets them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Inode> {
        let both = |(database, known): (Inode, Database)| [Some(database), known.wal_index];
        self.0.drain().flat_map(both).flatten()
    }
}
