//! One database, one write lock, by whatever name it is opened.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use vfs_tests::{Agent, Board, STOCK_VFS, uri_of};

use crate::{SQLITE_BUSY, agent, status};

/// A board in a directory `real`, beside a directory `elsewhere`.
fn board() -> (Board, PathBuf) {
    let board = Board::new();
    let root = board.directory();
    fs::create_dir(root.join("real")).unwrap();
    fs::create_dir(root.join("elsewhere")).unwrap();
    let real = root.join("real").join("board.db");
    let mut stock = agent();
    stock.open("s", &uri_of(&real, STOCK_VFS), 0);
    stock.sql("s", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    (board, real)
}

/// A writer that opened `uri` is seen by the plain name, and keeps others out.
#[track_caller]
fn assert_meets(client: &mut Agent, uri: &str, real: &Path) {
    let mut plain = agent();
    plain.open("p", &uri_of(real, "kanban"), 0);
    client.open("c", uri, 0);
    client.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
    assert_eq!(status(&mut plain, "p", "/holder/pid"), client.pid(), "{uri}");
    assert_eq!(plain.sql("p", "BEGIN IMMEDIATE").code(), SQLITE_BUSY, "{uri}");
    let names = |client: &mut Agent, name: &str| {
        ["/sidecar", "/database"].map(|field| status(client, name, field))
    };
    assert_eq!(names(client, "c"), names(&mut plain, "p"), "{uri}");
    assert_eq!(names(client, "c")[1], real.to_str().unwrap(), "{uri}");
    client.sql("c", "COMMIT").rows();
    client.close("c");
}

/// `..`, `.`, doubled separators, a relative name from a directory that is then left.
#[test]
fn every_spelling_meets_in_one_sidecar() {
    let (board, real) = board();
    let root = board.directory();
    for name in ["elsewhere/../real/./board.db", "real//board.db", "real/../real/board.db"] {
        let mut client = agent();
        assert_meets(&mut client, &uri_of(&root.join(name), "kanban"), &real);
        client.call(&json!(["cd", root])).rows();
        assert_meets(&mut client, &format!("file:{name}?vfs=kanban"), &real);
    }
    let left: Vec<_> = root.join("elsewhere").read_dir().unwrap().collect();
    assert!(left.is_empty(), "no second sidecar: {left:?}");
}

/// A symbolic link to the file, and one to its directory. On unix the stock VFS follows them, too; on
/// Windows it makes a second WAL beside the link.
#[test]
fn links_lead_to_one_sidecar() {
    let (board, real) = board();
    let root = board.directory();
    let elsewhere = root.join("elsewhere");
    #[cfg(unix)]
    let (file, directory) = (
        std::os::unix::fs::symlink(&real, elsewhere.join("link.db")),
        std::os::unix::fs::symlink(root.join("real"), elsewhere.join("directory")),
    );
    #[cfg(windows)]
    let (file, directory) = (
        std::os::windows::fs::symlink_file(&real, elsewhere.join("link.db")),
        std::os::windows::fs::symlink_dir(root.join("real"), elsewhere.join("directory")),
    );
    let is_there = |name: &str| elsewhere.join(name).symlink_metadata().is_ok();
    if cfg!(windows) && !(is_there("link.db") && is_there("directory")) {
        // Users of Windows may make none, and Wine 8 says it has and has not; there
        // `scripts/windows-tests.sh` makes some from outside.
        let Some(linked) = std::env::var_os("KANBAN_LINKED_DIRECTORY").map(PathBuf::from) else {
            eprintln!("no links here: {file:?} {directory:?}");
            return;
        };
        return made_from_outside(&linked);
    }
    file.unwrap();
    directory.unwrap();
    for name in ["link.db", "directory/board.db"] {
        assert_meets(&mut agent(), &uri_of(&elsewhere.join(name), "kanban"), &real);
    }
    let left = elsewhere.read_dir().unwrap().count();
    assert_eq!(left, 2, "no second sidecar");
}

/// A directory that has, in a directory `elsewhere`, the links `link.db` to `real/board.db` and
/// `directory` to `real`.
fn made_from_outside(root: &Path) {
    let real = root.join("real").join("board.db");
    let mut stock = agent();
    stock.open("s", &uri_of(&real, STOCK_VFS), 0);
    stock.sql("s", "PRAGMA journal_mode=wal; CREATE TABLE IF NOT EXISTS t (x)").rows();
    for name in ["link.db", "directory/board.db"] {
        let path = root.join("elsewhere").join(name);
        assert_meets(&mut agent(), &uri_of(&path, "kanban"), &real);
    }
    assert_eq!(root.join("elsewhere").read_dir().unwrap().count(), 2, "no second sidecar");
}

/// The name with which programs of 16 bits open it, `BOARD~1.DB`; on a drive that has none, its own.
#[cfg(windows)]
fn short_name(path: &Path) -> String {
    use std::os::windows::ffi::OsStrExt;
    use windows_sys::Win32::Storage::FileSystem::GetShortPathNameW;
    let long: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let mut short = [0; 1024];
    // SAFETY: a terminated name, and room for that many characters.
    let n = unsafe { GetShortPathNameW(long.as_ptr(), short.as_mut_ptr(), short.len() as u32) };
    assert!(n > 0 && (n as usize) < short.len(), "{}", std::io::Error::last_os_error());
    String::from_utf16(&short[..n as usize]).unwrap()
}

/// The short name of the board, in a directory by its short name.
#[test]
#[cfg(windows)]
fn short_names_meet_in_one_sidecar() {
    let (board, _) = board();
    let real = board.directory().join("a directory with a long name").join("a board of ours.db");
    fs::create_dir(real.parent().unwrap()).unwrap();
    let mut stock = agent();
    stock.open("s", &uri_of(&real, STOCK_VFS), 0);
    stock.sql("s", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    let short = short_name(&real);
    assert_meets(&mut agent(), &uri_of(Path::new(&short), "kanban"), &real);
    let files = real.parent().unwrap().read_dir().unwrap().count();
    assert_eq!(files, 5, "database, WAL, wal-index, event log and one sidecar");
}

/// What Windows takes for the same name: other cases, `\\?\`, slashes and backslashes, trailing dots
/// and blanks. A board that does not exist yet, too.
#[test]
#[cfg(windows)]
fn windows_spellings_meet_in_one_sidecar() {
    let (board, real) = board();
    let plain = real.to_str().unwrap();
    let (drive, rest) = plain.split_at(2);
    let other_case = format!("{}{}", drive.to_lowercase(), rest.to_uppercase());
    for name in
        [&other_case, &format!(r"\\?\{plain}"), plain, &format!("{plain}."), &format!("{plain} ")]
    {
        let uri = format!("file:{}?vfs=kanban", name.replace('\\', "%5c").replace('?', "%3f"));
        assert_meets(&mut agent(), &uri, &real);
    }
    let files = real.parent().unwrap().read_dir().unwrap().count();
    assert_eq!(files, 5, "database, WAL, wal-index, event log and one sidecar");

    let new = board.directory().join("elsewhere").join("..").join("NEW.db");
    let (mut first, mut second) = (agent(), agent());
    first.open("c", &uri_of(&new, "kanban"), 0);
    first.sql("c", "CREATE TABLE t (x); BEGIN IMMEDIATE").rows();
    second.open("c", &uri_of(&board.directory().join("new.db"), "kanban"), 0);
    assert_eq!(status(&mut second, "c", "/holder/pid"), first.pid());
    assert_eq!(second.sql("c", "BEGIN IMMEDIATE").code(), SQLITE_BUSY);
}
