use super::*;
use crate::group_commit::test_wal::{TestWal, frames, salts};

/// The frames behind the durable ones are written once more as they are. If none is durable, the
/// header before them is written, too.
#[test]
fn frames_are_written_again_as_they_are() {
    for (magic, page) in [(0x377f_0682, 512), (0x377f_0683, 512), (0x377f_0682, 65536)] {
        let wal = TestWal::new(frames(magic, page, 4));
        let size = 24 + page as i32;
        let at = |frame: i64| 32 + (frame - 1) * i64::from(size);
        for (behind, until, expected) in [
            (0, 4, &[(0, 32), (at(1), size), (at(2), size), (at(3), size), (at(4), size)][..]),
            (1, 3, &[(at(2), size), (at(3), size)]),
            (3, 4, &[(at(4), size)]),
            (4, 4, &[]),
            (0, 0, &[(0, 32)]),
        ] {
            assert!(write_again(wal, salts(), behind, until), "{behind} to {until}");
            let written = wal.written();
            assert_eq!(written, expected, "{behind} to {until}, {magic:x}, {page}");
        }
        assert!(wal.seen(|memory| memory.bytes == frames(magic, page, 4)));
        assert!(!write_again(wal, salts(), 0, 5), "there are fewer frames");
    }
}

/// A frame that differs from what was committed is not written, nor is any frame behind it: a
/// repair would make it look durable.
#[test]
fn a_frame_that_is_not_what_was_committed_is_an_error() {
    const FRAME: usize = 24 + 512;
    let whole = frames(0x377f_0682, 512, 3);
    let second = 32 + FRAME;
    // The byte at which a bit is wrong, how many frames are durable, and how many writes come before.
    for (at, behind, writes) in [
        (0, 0, 0), // the header's magic number
        (3, 0, 0), // its byte order
        (5, 0, 0), // what is summed
        (8, 0, 0), // the size of a page
        (10, 0, 0),
        (16, 0, 0), // the salts
        (20, 0, 0),
        (24, 0, 0), // the sums
        (28, 0, 0),
        (second, 0, 2),     // a frame's page number
        (second + 4, 0, 2), // its commit mark
        (second + 8, 0, 2), // its salts
        (second + 12, 0, 2),
        (second + 16, 0, 2), // its sums
        (second + 20, 0, 2),
        (second + 24, 0, 2), // its page
        (second + FRAME - 1, 0, 2),
        (second + 8, 2, 0),  // the salts of the last that is durable
        (second + 16, 2, 0), // its sums
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let wal = TestWal::new(bytes.clone());
        assert!(!write_again(wal, salts(), behind, 3), "byte {at}");
        let (written, now) =
            wal.seen(|memory| (memory.written.len(), std::mem::take(&mut memory.bytes)));
        assert_eq!(written, writes, "byte {at}");
        assert!(now == bytes, "byte {at}");
    }
    let other = salts().map(|salt| salt ^ 1);
    let wal = TestWal::new(whole);
    for salts in [[other[0], salts()[1]], [salts()[0], other[1]]] {
        assert!(!write_again(wal, salts, 0, 3));
    }
    // Headers that are impossible, with right checksums.
    for (magic, page) in [(0x377f_0682, 256), (0x377f_0682, 131_072), (0x377f_0680, 512)] {
        let wal = TestWal::new(frames(magic, page, 1));
        assert!(!write_again(wal, salts(), 0, 1), "{magic:x}, {page}");
        assert_eq!(wal.seen(|memory| memory.written.len()), 0);
    }
    assert!(!write_again(TestWal::new(vec![0; 31]), salts(), 0, 0), "no header");
}
