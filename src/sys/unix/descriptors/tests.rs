use super::*;
use crate::sys::entry_of;

/// A file that is kept is closed with its owner, unless its number is another file's by then.
#[test]
fn a_kept_file_does_not_close_another_that_has_its_number() {
    let (file, other) = [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a file")).into();
    let kept = Kept::new(file.reopen().expect("it is there"));
    let (number, inode) = (kept.as_raw_fd(), inode_of(kept.as_raw_fd()).expect("it is open"));
    assert!(kept.is_intact());
    drop(kept);
    assert!(!is_of(number, inode));
    let other = other.reopen().expect("it is there");
    let stale = for_tests::stale(other.as_raw_fd(), inode);
    assert!(!stale.is_intact());
    drop(stale);
    assert!(is_of(other.as_raw_fd(), entry_of(&other).expect("it is open").inode));
}
