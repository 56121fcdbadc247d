//! The record in the sidecar's page that tells all which frames of a WAL are durable, and whether a sync has failed.

use crate::format::{Salts, checksum};
use crate::lock::page::GroupBytes;
use crate::sys::{self, Inode};

/// One WAL, from one of its beginnings to the next, on this machine since it was started: whoever
/// else has the same salts, be it a copy of the file, or the file before a power cut, is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    key: [u32; 2],
    salts: Salts,
}

impl Log {
    /// The WAL in that file, with those salts. `None` if one start of the machine can not be told
    /// from another.
    pub(crate) fn of(file: Inode, salts: Salts) -> Option<Self> {
        let boot = sys::boot_id()?;
        let [device, number] = file.numbers();
        let words = [boot as u64, (boot >> 64) as u64, device, number];
        let words = words.map(|word| [word as u32, (word >> 32) as u32]);
        Some(Self { key: checksum([1, 0], words), salts })
    }
}

#[cfg(test)]
impl Log {
    /// The same file with other salts.
    pub(crate) fn begun_anew(self, salts: [u32; 2]) -> Self {
        Self { salts, ..self }
    }
}

/// What is known of the syncs of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) log: Log,
    /// So many frames are durable.
    pub(crate) frames: u32,
    /// Odd from a failed sync until it is made up for.
    pub(crate) failures: u32,
}

/// What [`GroupBytes`] say of a WAL.
impl GroupBytes {
    /// The futex word.
    pub(crate) fn word(&self) -> u32 {
        self.u32_at(0)
    }

    /// The record, if it is whole and about that WAL.
    pub(crate) fn record(&self, log: &Log) -> Option<Record> {
        let record = Record { log: *log, frames: self.u32_at(12), failures: self.u32_at(16) };
        (record.encode(self.word()) == *self).then_some(record)
    }

    /// [`Record::failures`] of that WAL or, made up for, of an earlier beginning of it; 0 if there is no
    /// record.
    pub(crate) fn failures(&self, log: &Log) -> u32 {
        let then = Log { key: log.key, salts: [self.u32_at(4), self.u32_at(8)] };
        match self.record(&then) {
            Some(record) if then == *log => record.failures,
            Some(record) => record.failures.wrapping_add(record.failures % 2),
            None => 0,
        }
    }
}

impl Record {
    /// Whether a sync has failed and was not made up for.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures % 2 != 0
    }

    /// Its bytes, behind that futex word.
    pub(crate) fn encode(&self, word: u32) -> GroupBytes {
        let [salt0, salt1] = self.log.salts;
        let pairs = [[salt0, salt1], [self.frames, self.failures]];
        // Twice round, so that each word counts in both sums.
        let [sum0, sum1] = checksum(self.log.key, pairs.into_iter().chain(pairs));
        let mut bytes = GroupBytes::default();
        let words = [word, salt0, salt1, self.frames, self.failures, sum0, sum1];
        for (room, word) in bytes.0.chunks_exact_mut(4).zip(words) {
            room.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::page::GROUP_SIZE;

    /// The bytes are what the table in [`crate::lock::page`] says. The checksum begins with what names the file and this start
    /// of the machine.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "group commit is Linux's")]
    fn the_record_is_what_the_table_says() {
        let file = tempfile::tempfile().expect("there is room");
        let inode = sys::entry_of(&file).expect("it is open").inode;
        let log = Log::of(inode, [7, 8]).expect("there is a /proc");
        let [device, number] = inode.numbers().map(u64::to_le_bytes);
        let named =
            [&sys::boot_id().expect("there is a /proc").to_le_bytes(), &device[..], &number];
        let mut words = [named.concat().as_slice(), &[7, 0, 0, 0, 8, 0, 0, 0]].concat();
        let body = [9, 0, 0, 0, 2, 0, 0, 0];
        let again = [&words[32..], &body, &words[32..], &body].concat();
        words.truncate(32);
        words.extend(again);
        let (mut s0, mut s1) = (1_u32, 0_u32);
        for pair in words.chunks_exact(8) {
            let [x0, x1] = [0, 4]
                .map(|at| u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]));
            s0 = s0.wrapping_add(x0).wrapping_add(s1);
            s1 = s1.wrapping_add(x1).wrapping_add(s0);
        }
        let expected = [5, 7, 8, 9, 2, s0, s1].map(u32::to_le_bytes).concat();
        let record = Record { log, frames: 9, failures: 2 };
        assert_eq!(record.encode(5).0.as_slice(), expected);
        // Of this beginning of the WAL, and of the next, for which a failure is made up for.
        let failed = Record { failures: 3, ..record }.encode(5);
        let next = log.begun_anew([1, 2]);
        assert_eq!([failed.failures(&log), failed.failures(&next)], [3, 4]);
        assert_eq!(record.encode(5).failures(&next), 2);
        assert_eq!(GroupBytes::default().failures(&log), 0);
    }

    /// Whatever of a record is another's, old, or random, it is none.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "group commit is Linux's")]
    fn a_record_is_whole_and_of_its_wal_or_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let inode = |name: &str| {
            let path = directory.path().join(name);
            let file = std::fs::File::create(path).expect("there is room");
            sys::entry_of(&file).expect("it is open").inode
        };
        let (wal, other) = (inode("wal"), inode("other"));
        let log = Log::of(wal, [7, 8]).expect("there is a /proc");
        let record = Record { log, frames: 99, failures: 2 };
        let bytes = record.encode(5);
        assert_eq!((bytes.word(), bytes.record(&log)), (5, Some(record)));
        assert_eq!(bytes.record(&Log::of(wal, [7, 9]).expect("as above")), None);
        assert_eq!(bytes.record(&Log::of(other, [7, 8]).expect("as above")), None);
        assert_eq!(GroupBytes::default().record(&Log::of(wal, [0, 0]).expect("as above")), None);
        let later = Record { frames: 100, failures: 3, ..record }.encode(6);
        for torn in 4..GROUP_SIZE {
            for (first, last) in [(bytes, later), (later, bytes)] {
                let mut mixed = first;
                mixed.0[torn..].copy_from_slice(&last.0[torn..]);
                let found = mixed.record(&log);
                assert!(
                    found.is_none() || mixed.0[4..] == first.0[4..] || mixed.0[4..] == last.0[4..]
                );
            }
        }
        for bit in 32..GROUP_SIZE * 8 {
            let mut flipped = bytes;
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(flipped.record(&log), None, "bit {bit}");
        }
    }
}
