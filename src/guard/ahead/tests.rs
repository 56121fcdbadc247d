use super::*;

const PAGE: i64 = 4096;

/// A small board grows page by page. The file is always far enough ahead, and few checkpoints have
/// to make it longer.
#[test]
fn few_small_checkpoints_make_the_file_longer() {
    let mut ahead = Ahead::default();
    let (mut size, mut grown) = (2 * PAGE, 0);
    for pages in 2..1000 {
        let (old, new) = (pages * PAGE, (pages + 1) * PAGE);
        if let Some(to) = ahead.before_header(size, old, new) {
            assert!(to > size && to % PAGE == 0);
            (size, grown) = (to, grown + 1);
        }
        assert!(size >= new + LEAST);
        assert_eq!(ahead.after_checkpoint(size, new), None);
    }
    assert!((5..30).contains(&grown), "{grown}");
}

/// A client stores a blob that is larger than the distance by which the file is ahead. The next
/// blob of that size finds the file long enough, whichever connection's checkpoint copies it.
#[test]
fn the_file_is_ahead_by_more_than_the_largest_growth() {
    let blob = 1 << 20;
    let mut ahead = Ahead::default();
    let length = 10 * PAGE;
    let to = ahead.before_header(length + LEAST, length, length + blob).expect("it grows");
    assert!(to >= length + 3 * blob);
    for mut ahead in [ahead, Ahead::default()] {
        assert_eq!(ahead.before_header(to, length + blob, length + 2 * blob), None);
    }
}

/// A VACUUM frees the pages of a large blob. The file becomes shorter, whichever connection's
/// checkpoint completes. If it frees little, the file stays as it is.
#[test]
fn a_large_vacuum_makes_the_file_shorter() {
    let (small, large) = (100 * PAGE, 100 << 20);
    let mut writer = Ahead::default();
    let size = writer.before_header(small, small, large).expect("it grows");
    assert_eq!(writer.after_checkpoint(size, large), None);
    assert_eq!(writer.before_header(size, large, small), None);
    for mut ahead in [writer, Ahead::default()] {
        let then = small + AFTER_CUT;
        assert_eq!(ahead.after_checkpoint(size, small), Some(then));
        assert_eq!((0..30).find_map(|_| ahead.after_checkpoint(then, small)), None);
        assert_eq!(ahead.before_header(small + AFTER_CUT, small, small - PAGE), None);
    }
}

/// A connection imports rows, and writes little from then on. The file does not stay as far ahead
/// as the import made it, since each checkpoint would read all those bytes.
#[test]
fn the_distance_of_an_import_does_not_last() {
    let mut ahead = Ahead::default();
    let (mut size, mut length) = (2 * PAGE, 2 * PAGE);
    for _ in 0..5 {
        let new = length + (4 << 20);
        size = ahead.before_header(size, length, new).unwrap_or(size);
        length = new;
        assert_eq!(ahead.after_checkpoint(size, length), None);
    }
    let after_import = size - length;
    for _ in 0..100 {
        size = ahead.after_checkpoint(size, length).unwrap_or(size);
    }
    let lasts = size - length;
    assert!(after_import > 2 * lasts, "{after_import}, then {lasts}");
    assert!((LEAST..=AFTER_CUT).contains(&lasts), "{lasts}");
}

/// Two connections share a board. One imports, the other writes little. They do not cut and extend
/// the file by turns.
#[test]
fn a_small_writer_does_not_cut_the_file_beside_an_import() {
    let [mut importer, mut writer] = [(); 2].map(|()| Ahead::default());
    let (mut size, mut length) = (2 * PAGE, 2 * PAGE);
    for _ in 0..100 {
        let new = length + (1 << 20);
        size = importer.before_header(size, length, new).unwrap_or(size);
        length = new;
        assert_eq!(importer.after_checkpoint(size, length), None);
        assert_eq!(writer.before_header(size, length, length + PAGE), None);
        length += PAGE;
        assert_eq!(writer.after_checkpoint(size, length), None);
    }
}

/// The distance is bounded, however large the database or a transaction is.
#[test]
fn the_distance_is_bounded() {
    let ahead = Ahead { largest_growth: 1 << 40, ..Ahead::default() };
    assert_eq!(ahead.distance(1 << 40), MOST);
    assert_eq!(Ahead::default().distance(0), LEAST);
}

/// SQLite asks for the length in one read transaction after the other. The header is read once, and
/// again only when it may have changed: the file has another length, the wal-index another header,
/// or the connection itself checkpointed or recovered.
#[test]
fn the_header_is_read_again_when_it_may_have_changed() {
    let size = 100 * PAGE;
    let mut told = Told::default();
    assert_eq!(told.known(size, 7), None);
    assert_eq!(told.read(size, 7, Some(2 * PAGE)), 2 * PAGE);
    for (size, checksum, known) in [
        (size, 7, Some(2 * PAGE)),
        (size, 8, None),
        (size + PAGE, 7, None),
        (size, 7, Some(2 * PAGE)),
    ] {
        assert_eq!(told.known(size, checksum), known, "{size}, {checksum}");
    }
    told.forget();
    assert_eq!(told.known(size, 7), None);
    assert_eq!(told.known(0, 0), Some(0), "a file without bytes has no other length");
}

/// If a file is not ahead, SQLite is told the file's own length, without another look.
#[test]
fn sqlite_is_told_no_more_than_the_files_length() {
    for by_header in [Some(5 * PAGE), Some(6 * PAGE), None] {
        let mut told = Told::default();
        assert_eq!(told.read(5 * PAGE, 7, by_header), 5 * PAGE, "{by_header:?}");
        assert_eq!(told.known(5 * PAGE, 7), Some(5 * PAGE));
    }
}
