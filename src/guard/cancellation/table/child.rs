//! What a child of fork(2) does with the table of its parent.
//!
//! The child shares its parent's open file descriptions, and so its locks
//! (<https://www.sqlite.org/howtocorrupt.html> 2.6). An unlock in the child would release the parent's lock, and a
//! child that lives on would keep the locks of a parent that died. So the child at once closes its copies of the
//! lock descriptors, which leaves the parent's locks alone. And it refuses locks by descriptors that the parent
//! opened. A file that the child opens itself is its own. Files that were not ours keep the stock VFS's behaviour.

use std::collections::HashMap;

use super::{LockKind, LockTable, Table};
use crate::guard::cancellation::published::Answer;
use crate::sys::Inode;
use crate::sys::fork;

/// The files that a parent had open through the VFS, and the parent's generation when it last forked.
#[derive(Default)]
pub(super) struct Inherited(HashMap<Inode, u64>);

impl LockTable {
    /// Keeps other threads from opening lock descriptors until the result is dropped. The thread that forks calls
    /// this before the fork.
    pub(crate) fn hold_for_fork(&'static self) -> impl std::any::Any {
        self.table.lock()
    }

    /// Closes the inherited lock descriptors, in a forked child before any other call.
    pub(crate) fn abandon_inherited(&'static self) {
        self.with((), Table::abandon_inherited);
    }

    /// In a forked child: the generation of the parent that had a file open through the VFS; `None` if no parent
    /// had.
    pub(crate) fn inherited(&'static self, inode: Inode) -> Option<u64> {
        self.with(None, |table| table.inherited.0.get(&inode).copied())
    }
}

impl Table {
    fn abandon_inherited(&mut self) {
        self.published.forget_calls();
        let generation = fork::generation();
        self.locked_before.clear();
        self.descriptors.own.clear();
        for inode in self.ours.drain() {
            self.inherited.0.insert(inode, generation);
        }
        for (inode, mut file) in std::mem::take(&mut self.files) {
            if let LockKind::Ofd(_) = file.kind {
                self.inherited.0.insert(inode, generation);
                for descriptor in file.descriptors {
                    self.published.publish(descriptor, Answer::AskTheTable);
                    if let Some(known) = self.descriptors.sqlites.get_mut(&descriptor) {
                        known.inode = None;
                    }
                }
            } else {
                (file.kind, file.calling) = (LockKind::Stock, 0);
                self.files.insert(inode, file);
                self.publish(inode);
            }
        }
    }
}
