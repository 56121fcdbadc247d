use super::*;
use crate::lock::page::GROUP_SIZE;

impl WalId {
    /// The WAL in the same file after a restart.
    pub(in crate::group_commit) fn restarted(self, salts: Salts) -> Self {
        Self { salts, ..self }
    }
}

/// The bytes are what the table in [`crate::lock::page`] says. The checksum begins with the
/// identities of the file and of this boot of the machine.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "group commit is Linux's")]
fn a_record_has_the_bytes_that_the_table_says() {
    let file = tempfile::tempfile().expect("there is room");
    let inode = sys::entry_of(&file).expect("it is open").inode;
    let id = WalId::of(inode, [7, 8]).expect("there is a /proc");
    let [device, number] = inode.numbers().map(u64::to_le_bytes);
    let named = [&sys::boot_id().expect("there is a /proc").to_le_bytes(), &device[..], &number];
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
    let record = Record { id, durable: 9, failures: 2 };
    assert_eq!(record.encode(5).0.as_slice(), expected);
    // Of this WAL, and after its restart, which repairs a failure.
    let failed = Record { failures: 3, ..record }.encode(5);
    let next = id.restarted([1, 2]);
    assert_eq!([failed.failures(&id), failed.failures(&next)], [3, 4]);
    assert_eq!(record.encode(5).failures(&next), 2);
    assert_eq!(GroupBytes::default().failures(&id), 0);
}

/// A record counts as none if a part of it is another record's, old, or random.
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
    let id = WalId::of(wal, [7, 8]).expect("there is a /proc");
    let record = Record { id, durable: 99, failures: 2 };
    let bytes = record.encode(5);
    assert_eq!((bytes.word(), bytes.record(&id)), (5, Some(record)));
    assert_eq!(bytes.record(&WalId::of(wal, [7, 9]).expect("there is a /proc")), None);
    assert_eq!(bytes.record(&WalId::of(other, [7, 8]).expect("there is a /proc")), None);
    assert_eq!(
        GroupBytes::default().record(&WalId::of(wal, [0, 0]).expect("there is a /proc")),
        None
    );
    let later = Record { durable: 100, failures: 3, ..record }.encode(6);
    for torn in 4..GROUP_SIZE {
        for (first, last) in [(bytes, later), (later, bytes)] {
            let mut mixed = first;
            mixed.0[torn..].copy_from_slice(&last.0[torn..]);
            let found = mixed.record(&id);
            assert!(found.is_none() || mixed.0[4..] == first.0[4..] || mixed.0[4..] == last.0[4..]);
        }
    }
    for bit in 32..GROUP_SIZE * 8 {
        let mut flipped = bytes;
        flipped.0[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(flipped.record(&id), None, "bit {bit}");
    }
}
