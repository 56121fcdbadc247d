//! The record in the sidecar's page: how many frames of a WAL are durable, and whether a sync of it has failed.
//!
//! The layout of its bytes is in [`crate::lock::page`].

use std::io;
use std::time::Duration;

use crate::format::{Salts, checksum};
use crate::lock::page::GroupBytes;
use crate::lock::sidecar::Sidecar;
use crate::sys::{self, Inode, Range};

/// One WAL: a file, from one restart of the WAL to the next, in one boot of this machine. A copy of
/// the file, and the file before a power cut, have the same salts, but count as other WALs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(super) struct WalId {
    /// The checksum of the identities of the file and the boot.
    key: [u32; 2],
    pub(super) salts: Salts,
}

impl WalId {
    /// The WAL in `file` with these salts. `None` if one boot of the machine cannot be told from another.
    pub(super) fn of(file: Inode, salts: Salts) -> Option<Self> {
        let boot = sys::boot_id()?;
        let [device, number] = file.numbers();
        let words = [boot as u64, (boot >> 64) as u64, device, number];
        let words = words.map(|word| [word as u32, (word >> 32) as u32]);
        Some(Self { key: checksum([1, 0], words), salts })
    }
}

/// What is known about the syncs of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: WalId,
    /// The number of frames that are durable, from the first on.
    pub(super) durable: u32,
    /// Odd from a failed sync until its repair: a failure and a repair each add one.
    pub(super) failures: u32,
}

/// What [`GroupBytes`] say about a WAL.
impl GroupBytes {
    /// The futex word.
    pub(super) fn word(&self) -> u32 {
        self.u32_at(0)
    }

    /// The record, if it is whole and about that WAL.
    pub(super) fn record(&self, id: &WalId) -> Option<Record> {
        let record = Record { id: *id, durable: self.u32_at(12), failures: self.u32_at(16) };
        (record.encode(self.word()) == *self).then_some(record)
    }

    /// [`Record::failures`] of that WAL. If the record is from before a restart of that WAL, which
    /// repairs a failure, the count after that repair. 0 if there is no record.
    pub(super) fn failures(&self, id: &WalId) -> u32 {
        let then = WalId { key: id.key, salts: [self.u32_at(4), self.u32_at(8)] };
        match self.record(&then) {
            Some(record) if then == *id => record.failures,
            Some(record) => record.failures.wrapping_add(record.failures % 2),
            None => 0,
        }
    }
}

impl Record {
    /// Whether a sync has failed and is not repaired.
    pub(super) fn has_failed(&self) -> bool {
        self.failures % 2 != 0
    }

    /// Its bytes, behind that futex word.
    pub(super) fn encode(&self, word: u32) -> GroupBytes {
        let [salt0, salt1] = self.id.salts;
        let pairs = [[salt0, salt1], [self.durable, self.failures]];
        // Each word is added twice, so that it counts in both sums.
        let [sum0, sum1] = checksum(self.id.key, pairs.into_iter().chain(pairs));
        let mut bytes = GroupBytes::default();
        let words = [word, salt0, salt1, self.durable, self.failures, sum0, sum1];
        for (room, word) in bytes.0.chunks_exact_mut(4).zip(words) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Writes it over `old`, with another futex word, so that no connection that has read `old` falls asleep.
    ///
    /// # Errors
    /// The sidecar cannot be written.
    pub(super) fn replace(&self, old: &GroupBytes, sidecar: &impl RecordFile) -> io::Result<()> {
        sidecar.write(&self.encode(old.word().wrapping_add(1)))
    }
}

/// A sidecar with a page of this VFS: the record, the futex word in front of it, and the leader's byte.
pub(super) trait RecordFile {
    /// Reads the futex word and the record.
    fn read(&self) -> io::Result<GroupBytes>;
    /// Writes the futex word and the record. Wakes nobody.
    fn write(&self, bytes: &GroupBytes) -> io::Result<()>;
    /// Locks the range exclusively, without waiting. False if another open file has a lock in it.
    fn try_lock(&self, range: Range) -> io::Result<bool>;
    /// Unlocks the range.
    fn unlock(&self, range: Range) -> io::Result<()>;
    /// Sleeps while the futex word is `word`, for `limit` at most.
    fn wait(&self, word: u32, limit: Duration);
    /// Changes the futex word, and wakes all that sleep on it.
    fn wake(&self);
}

/// Without a sidecar, a connection can neither tell others of its sync nor ask them to wait.
impl RecordFile for Option<&Sidecar> {
    fn read(&self) -> io::Result<GroupBytes> {
        self.map_or(Err(io::ErrorKind::NotFound.into()), Sidecar::read_group)
    }
    fn write(&self, bytes: &GroupBytes) -> io::Result<()> {
        self.map_or(Ok(()), |sidecar| sidecar.write_group(bytes))
    }
    fn try_lock(&self, range: Range) -> io::Result<bool> {
        self.map_or(Ok(false), |sidecar| sidecar.try_lock_group(range))
    }
    fn unlock(&self, range: Range) -> io::Result<()> {
        self.map_or(Ok(()), |sidecar| sidecar.unlock_group(range))
    }
    fn wait(&self, word: u32, limit: Duration) {
        self.inspect(|sidecar| sidecar.wait_for_group(word, limit));
    }
    fn wake(&self) {
        self.inspect(|sidecar| sidecar.wake_group());
    }
}

#[cfg(test)]
mod tests;
