//! A connection over a base file that tests control. Each file here tests the file of the same name in the folder
//! above.

mod begin;
mod checkpoint;
mod claim;
mod closing;
mod database_lock;
mod first_connect;
mod wal_slots;

use super::test_base::{Lock, TestBase, Unlock, board};
use super::*;
use crate::ffi::{ShmFlags, ShmSlot, ShmSlots};
use crate::guard::identity::Identity;
use crate::options::Options;
use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

type TestConnection = Connection<&'static TestBase>;

/// The flags with which xShmLock locks slots exclusively, and with which it unlocks them.
const LOCK: ShmFlags = ShmFlags::LOCK_EXCLUSIVE;
const UNLOCK: ShmFlags = ShmFlags::UNLOCK_EXCLUSIVE;

impl TestConnection {
    /// xShmLock, as `shim` hands it on to a connection.
    fn shm_lock(&mut self, slots: impl Into<ShmSlots>, flags: ShmFlags) -> ResultCode {
        let slots = slots.into();
        match (slots.first, flags) {
            (ShmSlot::WRITE, LOCK) => self.lock_write(slots),
            (ShmSlot::WRITE, UNLOCK) => self.unlock_write(slots),
            _ => self.shm_lock_checked(slots, flags),
        }
    }
}

/// Whether xShmLock of a slot is simply passed on, as `shim` asks.
fn is_plain(connection: &mut TestConnection, slot: ShmSlot, flags: ShmFlags) -> bool {
    match connection.note_plain(slot.into(), flags) {
        Passing::Plain => true,
        Passing::MayBegin => connection.note_plain_begin(),
        Passing::Checked => false,
    }
}

/// A connection over `base` to a database in `directory`.
fn connection_over(directory: &tempfile::TempDir, base: &'static TestBase) -> TestConnection {
    connection_with(directory, base, &Options::default())
}

/// As [`connection_over`], with these options.
fn connection_with(
    directory: &tempfile::TempDir,
    base: &'static TestBase,
    options: &Options,
) -> TestConnection {
    let path = directory.path().join("board.db");
    fs::File::options().create(true).append(true).open(&path).expect("a directory");
    let host = Host::linked().expect("a linked SQLite");
    let settings = Settings::defaults_of(options);
    let known = AtOpen { identity: Ok(None), no_wal: None, keeps_ahead: false };
    Connection::new(base, &path, settings, host, known, false)
}

/// A connection to a database in `directory`, over a base of its own that grants every lock.
fn connection(directory: &tempfile::TempDir) -> (TestConnection, &'static TestBase) {
    let base = TestBase::default().leak();
    (connection_over(directory, base), base)
}

/// Guards that look at the files of a connection's database.
fn guards_of(connection: &TestConnection) -> Guards<&'static TestBase> {
    let identity = Identity::of(connection.database().path(), false);
    let known = AtOpen { identity, no_wal: None, keeps_ahead: false };
    Guards::new(connection.base, connection.database(), connection.log, known)
}

/// A connection over `base` to a board with a WAL, and the directory of that board.
fn connection_with_wal(
    base: &'static TestBase,
    options: &Options,
) -> (tempfile::TempDir, TestConnection) {
    let (place, database, guards) = board();
    let host = Host::linked().expect("a linked SQLite");
    let settings = Settings::defaults_of(options);
    let known = AtOpen { identity: Ok(None), no_wal: None, keeps_ahead: false };
    let mut connection = Connection::new(base, database.path(), settings, host, known, false);
    connection.guards = guards;
    connection.guards.set_base(base);
    (place, connection)
}

/// How many attempts of this process were refused, how many waits ended with the lock, and how many gave up.
fn refused_waited_and_gave_up(connection: &TestConnection) -> [u64; 3] {
    let counters = &connection.database().counters;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    [&counters.refused, &counters.waits, &counters.gave_up].map(counted)
}
