//! One database has one write lock, by whatever name it is opened.

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;
use vfs_tests::sidecar::holder;
use vfs_tests::{Board, Program, needs, skip};

use crate::{agent, connect, status};

/// Two programs open one board by different names: through a symbolic link to the file, one to its
/// directory, a link to a link, `..`, or a relative name from a directory that they then leave.
/// Each sees the other as the holder when that one writes, and there is only one sidecar.
#[test]
fn every_spelling_meets_in_one_sidecar() {
    for program in Program::ALL {
        let board = Board::new();
        let root = board.directory();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::create_dir(root.join("elsewhere")).unwrap();
        let real = root.join("real/board.db");
        connect(&format!("file:{}?vfs=unix", real.display()))
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        symlink(&real, root.join("elsewhere/link.db")).unwrap();
        symlink("link.db", root.join("elsewhere/link-to-link.db")).unwrap();
        symlink("../real", root.join("elsewhere/directory")).unwrap();
        let sidecar = root.join("real/board.db-lock");
        let names = [
            "elsewhere/link.db",
            "elsewhere/link-to-link.db",
            "elsewhere/directory/board.db",
            "elsewhere/../real/./board.db",
            "elsewhere//directory/../real/board.db",
        ];
        for name in names {
            for absolute in [true, false] {
                let mut client = agent(program);
                client.call(&json!(["cd", root])).rows();
                let name =
                    if absolute { root.join(name).display().to_string() } else { name.to_owned() };
                client.open("c", &format!("file:{name}?vfs=kanban"), 5000);
                client.call(&json!(["cd", "/"])).rows();
                client.sql("c", "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").rows();
                assert_eq!(holder(&sidecar), Some(client.pid()), "{name}");
                let plain = connect(&format!("file:{}?vfs=kanban", real.display()));
                assert_eq!(status(&plain, "/holder/pid"), client.pid(), "{name}");
                assert_eq!(status(&plain, "/sidecar"), sidecar.to_str().unwrap());
                assert_eq!(status(&plain, "/database"), real.to_str().unwrap());
                client.sql("c", "COMMIT").rows();
            }
        }
        let mut elsewhere: Vec<_> = root
            .join("elsewhere")
            .read_dir()
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        elsewhere.sort();
        assert_eq!(elsewhere, ["directory", "link-to-link.db", "link.db"], "no second sidecar");
    }
}

/// Two connections of one process, by two names of one file, exclude each other, although they
/// share one open file description, in which the kernel sees no conflict.
#[test]
fn two_names_in_one_process_exclude_each_other() {
    let board = Board::new();
    let link = board.directory().join("link.db");
    symlink(board.path(), &link).unwrap();
    let first = connect(&board.kanban());
    let second = connect(&format!("file:{}?vfs=kanban", link.display()));
    second.busy_timeout(std::time::Duration::ZERO).unwrap();
    first.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE").unwrap();
    assert!(second.execute_batch("INSERT INTO t VALUES (1)").is_err());
    assert_eq!(status(&second, "/counters/refused"), 1);
    assert_eq!(holder(&board.sidecar()), Some(std::process::id()), "the first keeps its lock");
    first.execute_batch("COMMIT").unwrap();
    second.execute_batch("INSERT INTO t VALUES (1)").unwrap();
}

/// Runs a shell script in a mount namespace of its own; an error where that is not allowed.
fn in_own_mounts(script: &str) -> Result<String, String> {
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-ec", script])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("unshare") || errors.contains("permission denied") {
        return Err(format!("needs the right to mount: {errors}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
}

/// A container sees the board's directory under a second name: the sidecar is the same file.
#[test]
fn a_directory_mounted_twice_meets_in_one_sidecar() {
    needs!("unshare", "mount", "sqlite3");
    let board = Board::new();
    let root = board.directory().display().to_string();
    connect(&board.stock()).execute_batch("CREATE TABLE t (x)").unwrap();
    let mut client = agent(Program::Rust);
    client.open("c", &board.kanban(), 5000);
    client.sql("c", "BEGIN IMMEDIATE").rows();
    let load = vfs_tests::extension().display();
    let said = match in_own_mounts(&format!(
        "mkdir {root}/twice; mount --bind {root} {root}/twice
         sqlite3 -batch :memory: -cmd '.load {load}' \
            -cmd '.open file:{root}/twice/board.db?vfs=kanban&kanban_busy_timeout=1' \
            'PRAGMA kanban_status' 'INSERT INTO t VALUES (1)' || true"
    )) {
        Ok(said) => said,
        Err(why) => return skip!(&why),
    };
    assert!(said.contains(&format!("\"pid\":{}", client.pid())), "{said}");
    assert!(said.contains("database is locked"), "{said}");
}

/// A container gets the board as a single file (`--volume board.db:/data/board.db`). On the stock
/// VFS its WAL and the original's are two files: each side commits, and neither ever sees what the
/// other wrote. Our VFS refuses, and says why and what to do.
#[test]
fn a_mounted_file_is_refused() {
    needs!("unshare", "mount", "sqlite3");
    let board = Board::new();
    let root = board.directory().display().to_string();
    let inside = board.directory().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("board.db"), "").unwrap();
    let outside = connect(&board.stock());
    outside.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (x)").unwrap();
    outside.execute_batch("PRAGMA wal_checkpoint(truncate); INSERT INTO t VALUES (1)").unwrap();
    let load = vfs_tests::extension().display();
    let script = |vfs: &str| {
        format!(
            "mount --bind {root}/board.db {root}/inside/board.db
             sqlite3 -batch :memory: -cmd '.load {load}' \
                -cmd '.open file:{root}/inside/board.db?vfs={vfs}' \
                'SELECT count(*) || \" rows\" FROM t' || true"
        )
    };
    let stock = match in_own_mounts(&script("unix")) {
        Ok(stock) => stock,
        Err(why) => return skip!(&why),
    };
    assert!(stock.contains("0 rows"), "the stock VFS does not see the committed row: {stock}");
    let ours = in_own_mounts(&script("kanban")).unwrap();
    assert!(ours.contains("is a file mounted over another"), "{ours}");
    assert!(ours.contains("mount the directory"), "{ours}");
    assert!(!ours.contains(" rows"), "{ours}");
}

/// A service manager mounts the files of a board over themselves (`ReadOnlyPaths=`,
/// `ReadWritePaths=`): read-only for a dashboard, or writable in a directory that is not. Their
/// names and directory stay the same.
#[test]
fn a_file_mounted_over_itself_is_opened() {
    for (mode, is_writer) in [("wal", false), ("delete", false), ("wal", true)] {
        for vfs in ["unix", "kanban"] {
            let board = Board::new();
            let root = board.directory().display().to_string();
            let outside = connect(&board.uri(vfs));
            let create =
                format!("PRAGMA journal_mode={mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
            outside.execute_batch(&create).unwrap();
            let mounts = match is_writer {
                false => format!(
                    "mount --bind {root}/board.db {root}/board.db
                     mount -o remount,bind,ro {root}/board.db"
                ),
                true => format!(
                    "mount --bind {root} {root}
                     for f in {root}/board.db*; do mount --bind $f $f; mount --bind $f $f; done
                     mount -o remount,bind,ro {root}"
                ),
            };
            let (access, sql) = match is_writer {
                false => ("ro", "SELECT 1"),
                true => ("rw", "INSERT INTO t VALUES (2)"),
            };
            let load = vfs_tests::extension().display();
            let said = match in_own_mounts(&format!(
                "{mounts}
                 sqlite3 -batch :memory: -cmd '.load {load}' \
                    -cmd '.open file:{root}/board.db?vfs={vfs}&mode={access}' \
                    '{sql}' 'SELECT count(*) || \" rows\" FROM t' || true"
            )) {
                Ok(said) => said,
                Err(why) => return skip!(&why),
            };
            let rows = if is_writer { "2 rows" } else { "1 rows" };
            assert!(said.contains(rows), "{mode}, writer: {is_writer}, {vfs}: {said}");
            outside.execute_batch("INSERT INTO t VALUES (3)").unwrap();
        }
    }
}
