//! First connects: a connection creates a database's content or changes its journal mode to WAL.
//!
//! Both read the header under SHARED and then upgrade. For an upgrade SQLite does not call its busy
//! handler, since two connections that upgrade would wait for each other. So of many first connects
//! one would succeed, and the others would fail with "database is locked" at once, whatever their
//! timeout. One step earlier, at SHARED, SQLite does call the busy handler. There a first connect
//! takes the write lock.

use super::base_file::BaseFile;

/// What one connection knows about the first content of its database.
#[derive(Debug, Default)]
pub(super) struct FirstConnect {
    /// The database was seen to have content.
    has_content: bool,
    /// The connection may have a statement that changes the journal mode to WAL.
    expects_mode_change: bool,
}

impl FirstConnect {
    /// `PRAGMA journal_mode=wal` is being compiled. SQLite announces that once, even if it only explains the statement
    /// or never runs it, and not again when it runs.
    pub(super) fn expect_mode_change(&mut self) {
        self.expects_mode_change = true;
    }

    /// Whether the SHARED that SQLite asks for may begin the write of a first connect.
    pub(super) fn look_whether_it_begins(&mut self, base: impl BaseFile) -> bool {
        if !self.has_content {
            // If the base file answers an error, SQLite asks it again and handles that.
            self.has_content = !matches!(base.size(), Ok(0));
        }
        if self.has_content && !self.expects_mode_change {
            return false;
        }
        let Some(doing) = base.doing() else { return !self.has_content };
        self.expects_mode_change &= doing.changes_mode.is_some();
        match self.has_content {
            true => {
                doing.changes_mode == Some(true)
                    && !base.header().is_some_and(|header| header.is_wal())
            }
            false => doing.may_upgrade(),
        }
    }

    #[cfg(test)]
    pub(super) fn expects_mode_change(&self) -> bool {
        self.expects_mode_change
    }
}
