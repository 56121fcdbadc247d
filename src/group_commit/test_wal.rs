//! A WAL in memory, for tests.

use std::cell::RefCell;
use std::ffi::c_int;

use super::deferral::{SyncOrder, Syncs};
use super::{Committer, WalFile, has_super_journal};
use crate::ffi::ResultCode;
use crate::format::Salts;

/// A connection with nothing attached, of an SQLite that does not say what a connection writes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TestCommitter;

impl Committer for TestCommitter {
    fn may_defer(self) -> bool {
        !has_super_journal()
    }
}

/// The contents of the base VFS's file, and the calls that it got.
#[derive(Default)]
pub(crate) struct Memory {
    syncs: Syncs<TestCommitter>,
    pub(crate) bytes: Vec<u8>,
    /// The flags of its syncs.
    synced: Vec<c_int>,
    /// How many of its next syncs fail.
    pub(crate) failing: usize,
    /// The writes: at which byte, and how many bytes.
    pub(crate) written: Vec<(i64, c_int)>,
}

impl Memory {
    fn sync(&mut self, flags: c_int) -> ResultCode {
        self.synced.push(flags);
        let fails = self.failing > 0;
        self.failing = self.failing.saturating_sub(1);
        if fails { ResultCode::IOERR_FSYNC } else { ResultCode::OK }
    }

    fn write(&mut self, from: &[u8], at: i64) {
        let (start, end) = (at as usize, at as usize + from.len());
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[start..end].copy_from_slice(from);
        self.written.push((at, from.len() as c_int));
    }
}

/// A WAL with group commit: what SQLite calls, and what the base VFS's file has seen of it.
pub(crate) struct TestWal(RefCell<Memory>);

impl TestWal {
    /// It lives as long as the test's process: connections keep it.
    pub(crate) fn new(bytes: Vec<u8>) -> &'static Self {
        Box::leak(Box::new(Self(RefCell::new(Memory { bytes, ..Memory::default() }))))
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// SQLite's xSync.
    pub(crate) fn sync(&self, flags: c_int) -> ResultCode {
        self.seen(|memory| {
            let header = match memory.syncs.sync(flags) {
                SyncOrder::Answer(rc) => return rc,
                SyncOrder::Now { header } => header,
            };
            let rc = memory.sync(flags);
            if !memory.syncs.synced(header.as_ref(), rc) {
                return rc;
            }
            memory.write(&header.expect("only a header is written again").0, 0);
            memory.sync(flags)
        })
    }

    /// SQLite's xWrite.
    pub(crate) fn write(&self, bytes: &[u8], at: i64) {
        self.seen(|memory| {
            memory.syncs.wrote(bytes, at);
            memory.write(bytes, at);
        });
    }

    pub(crate) fn defer(&'static self, committer: TestCommitter, reports_late: bool) {
        self.with_syncs(|syncs| syncs.defer(committer, reports_late));
    }

    pub(crate) fn take_asked(&'static self) -> (bool, Option<c_int>) {
        self.with_syncs(Syncs::take_asked)
    }

    pub(crate) fn take_synced(&'static self) -> Option<bool> {
        self.with_syncs(Syncs::take_synced)
    }

    /// The writes since the last call: at which byte, and how many bytes.
    pub(crate) fn written(&self) -> Vec<(i64, c_int)> {
        self.seen(|memory| std::mem::take(&mut memory.written))
    }

    /// The flags of the syncs since the last call.
    pub(crate) fn synced(&self) -> Vec<c_int> {
        self.seen(|memory| std::mem::take(&mut memory.synced))
    }
}

impl WalFile for &'static TestWal {
    type Committer = TestCommitter;

    fn with_syncs<T>(self, look: impl FnOnce(&mut Syncs<TestCommitter>) -> T) -> T {
        self.seen(|memory| look(&mut memory.syncs))
    }

    fn sync(self, flags: c_int) -> ResultCode {
        self.seen(|memory| memory.sync(flags))
    }

    fn read(self, bytes: &mut [u8], at: i64) -> bool {
        self.seen(|memory| match memory.bytes.get(at as usize..at as usize + bytes.len()) {
            Some(from) => {
                bytes.copy_from_slice(from);
                true
            }
            None => false,
        })
    }

    fn write(self, bytes: &[u8], at: i64) -> bool {
        self.seen(|memory| memory.write(bytes, at));
        true
    }
}

const SALTS: [u8; 8] = [9, 8, 7, 6, 5, 4, 3, 2];

/// The bytes of a WAL with `n` frames of `page` bytes each, by <https://www.sqlite.org/walformat.html>.
pub(crate) fn frames(magic: u32, page: u32, n: u32) -> Vec<u8> {
    let sum = |[mut s0, mut s1]: [u32; 2], bytes: &[u8]| {
        for eight in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let four = [eight[at], eight[at + 1], eight[at + 2], eight[at + 3]];
                match magic & 1 {
                    0 => u32::from_le_bytes(four),
                    _ => u32::from_be_bytes(four),
                }
            };
            s0 = s0.wrapping_add(word(0)).wrapping_add(s1);
            s1 = s1.wrapping_add(word(4)).wrapping_add(s0);
        }
        [s0, s1]
    };
    let put = |bytes: &mut Vec<u8>, words: [u32; 2]| {
        words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
    };
    let mut wal = Vec::new();
    put(&mut wal, [magic, 3_007_000]);
    put(&mut wal, [page, 0]);
    wal.extend(SALTS);
    let mut seed = sum([0, 0], &wal);
    put(&mut wal, seed);
    for frame in 1..=n {
        let mut head = Vec::new();
        put(&mut head, [frame, frame]);
        let content: Vec<u8> = (0..page).map(|at| (at * 7 + frame) as u8).collect();
        seed = sum(sum(seed, &head), &content);
        head.extend(SALTS);
        put(&mut head, seed);
        wal.extend(head);
        wal.extend(content);
    }
    wal
}

/// The salts of a WAL that [`frames`] makes.
pub(crate) fn salts() -> Salts {
    [0, 4].map(|at| u32::from_ne_bytes([SALTS[at], SALTS[at + 1], SALTS[at + 2], SALTS[at + 3]]))
}
