//! The VFS loads everywhere, any number of times, and wrong options are named.

use std::process::Command;

use kanban_vfs::{Error, Options};
use vfs_tests::{Board, PYTHON, Program, extension, run};

use crate::{agent, connect};

/// Runs a Python program with Debian's SQLite; its first argument is the extension.
fn python(program: &str, arguments: &[&str]) -> String {
    let extension = extension().to_str().unwrap();
    run(PYTHON, &[&["-c", program, extension], arguments].concat())
}

/// Debian's shell loads it, opens a board, and asks for the VFS's name.
#[test]
fn the_shell_loads_it() {
    vfs_tests::needs!("sqlite3");
    let board = Board::new();
    let load = format!(".load {}", extension().with_extension("").display());
    let open = format!(".open {}", board.kanban());
    let said = run(
        "sqlite3",
        &[
            ":memory:",
            "-cmd",
            &load,
            "-cmd",
            &load,
            "-cmd",
            &open,
            ".vfsname",
            ".vfslist",
            "CREATE TABLE t (x)",
            "SELECT 'version ' || kanban_version()",
            ".vfsname main",
        ],
    );
    assert!(said.starts_with("kanban/unix\n"), "{said}");
    assert!(said.contains("vfs.zName      = \"kanban\"  <--- CURRENT"), "{said}");
    assert!(said.contains(&format!("version {}", env!("CARGO_PKG_VERSION"))), "{said}");
}

/// A program loads it in eight threads, each into several connections, while others use it.
#[test]
fn loading_it_again_and_at_once_is_harmless() {
    let board = Board::new();
    let said = python(
        "
import sqlite3, sys, threading
extension, uri = sys.argv[1:]
def work():
    for n in range(20):
        loader = sqlite3.connect(':memory:')
        loader.enable_load_extension(True)
        loader.load_extension(extension)
        loader.load_extension(extension)
        board = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
        board.execute('CREATE TABLE IF NOT EXISTS t (x)')
        board.execute('INSERT INTO t VALUES (1)')
        board.close()
threads = [threading.Thread(target=work) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sqlite3.connect(uri, uri=True).execute('SELECT count(*) FROM t').fetchone()[0])
",
        &[&board.kanban()],
    );
    assert_eq!(said, "160\n");
}

/// Loading it into a connection that is already open does not change that connection's timeout.
#[test]
fn loading_it_changes_no_open_connection() {
    let board = Board::new();
    let said = python(
        "
import sqlite3, sys
extension, uri = sys.argv[1:]
for n in range(2):
    c = sqlite3.connect(uri if n else ':memory:', uri=True, timeout=0.123)
    c.enable_load_extension(True)
    c.load_extension(extension)
    print(c.execute('PRAGMA busy_timeout').fetchone()[0], c.execute('SELECT kanban_version()').fetchone()[0])
",
        &[&board.kanban()],
    );
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(said, format!("123 {version}\n123 {version}\n"));
}

/// An application whose connection strings cannot change loads it by its second entry point.
#[test]
fn the_second_entry_point_makes_it_the_default() {
    let board = Board::new();
    let said = python(
        "
import sqlite3, sys
extension, path = sys.argv[1:]
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
for entry in ['sqlite3_kanbanvfs_init', 'sqlite3_kanbanvfs_default_init', 'sqlite3_kanbanvfs_init']:
    loader.execute('SELECT load_extension(?, ?)', (extension, entry))
    rows = sqlite3.connect(path).execute('PRAGMA kanban_status').fetchall()
    print(len(rows), rows and '\"vfs\":\"kanban/unix\"' in rows[0][0])
",
        &[board.path().to_str().unwrap()],
    );
    assert_eq!(said, "0 []\n1 True\n1 True\n");
}

/// The extension's defaults come from the environment. A malformed variable fails the load, with
/// its name in the message.
#[test]
fn the_environment_sets_the_extensions_defaults() {
    vfs_tests::needs!("sqlite3");
    let board = Board::new();
    let load = |name: &str, value: &str| {
        Command::new("sqlite3")
            .args([":memory:", "-cmd", &format!(".load {}", extension().display())])
            .args(["-cmd", &format!(".open {}", board.kanban()), "PRAGMA busy_timeout", ".vfsname"])
            .env(name, value)
            .output()
            .unwrap()
    };
    let said = |output: &[u8]| String::from_utf8_lossy(output).into_owned();
    assert_eq!(said(&load("KANBAN_BUSY_TIMEOUT", "77").stdout), "77\nkanban/unix\n");
    let excl = load("KANBAN_BASE_VFS", "unix-excl");
    assert_eq!(said(&excl.stdout), "5000\nkanban/unix-excl\n");
    for (name, value, why) in [
        (
            "KANBAN_BUSY_TIMEOUT",
            "5s",
            "KANBAN_BUSY_TIMEOUT: \"5s\" is not a number of milliseconds",
        ),
        ("KANBAN_BASE_VFS", "no-such", "no such VFS to build on: no-such"),
    ] {
        let errors = said(&load(name, value).stderr);
        assert!(errors.contains(&format!("kanban-vfs: {why}")), "{errors}");
    }
}

/// A program with the setuid bit loads the extension. Any user that starts the program chooses its
/// environment, so none of the variables may count: secure_getenv(3). The same variable counts in a
/// program without that bit.
#[test]
#[cfg(unix)]
fn the_environment_does_not_count_in_a_setuid_program() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;

    const OWNER: u32 = 65533;
    const CALLER: u32 = 65534;
    vfs_tests::needs!(vfs_tests::needs::ROOT, "sqlite3");
    let board = Board::new();
    let directory = board.directory();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    let library = directory.join("libkanban_vfs.so");
    std::fs::copy(extension(), &library).unwrap();
    std::fs::set_permissions(&library, PermissionsExt::from_mode(0o755)).unwrap();
    let shell = directory.join("shell");
    std::fs::copy(run("sh", &["-c", "command -v sqlite3"]).trim(), &shell).unwrap();
    chown(&shell, Some(OWNER), None).unwrap();
    let timeout = |mode: u32| {
        std::fs::set_permissions(&shell, PermissionsExt::from_mode(mode)).unwrap();
        let load = format!(".load {}", library.display());
        let open = format!(".open {}", board.kanban().replace("?vfs", &format!("{mode:o}?vfs")));
        let output = Command::new(&shell)
            .args([":memory:", "-cmd", &load, "-cmd", &open, "PRAGMA busy_timeout"])
            .env("KANBAN_BUSY_TIMEOUT", "77")
            .current_dir("/")
            .uid(CALLER)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(timeout(0o755), "77\n");
    assert_eq!(timeout(0o4755), "5000\n");
}

/// A connection string has a typing error. The stock VFS ignores it, and the application runs
/// without what it asked for. Here the open fails, names the parameter and creates nothing.
#[test]
fn a_wrong_parameter_fails_the_open() {
    for program in Program::ALL {
        for (parameter, why) in [
            ("kanban_busy_timeot=9", "unknown URI parameter kanban_busy_timeot; known: "),
            ("kanban_busy_timeout=soon", "kanban_busy_timeout: \"soon\" is not a number of "),
        ] {
            let board = Board::new();
            let mut client = agent(program);
            client.try_open("stock", &format!("{}&{parameter}", board.uri("unix"))).rows();
            client.close("stock");
            let reply = client.try_open("c", &format!("{}&{parameter}", board.kanban()));
            let message = reply.clone().message();
            assert!(message.contains(why), "{message}");
            assert!(message.contains(board.path().to_str().unwrap()), "{message}");
            if program == Program::Rust {
                assert_eq!(reply.code(), 14, "SQLITE_CANTOPEN");
                assert!(client.log().iter().any(|line| line.contains(why)));
            }
            // The stock VFS's open created an empty file. The refused open did not change it.
            assert_eq!(board.path().metadata().unwrap().len(), 0);
            std::fs::remove_file(board.path()).unwrap();
            let message =
                client.try_open("c", &format!("{}&{parameter}", board.kanban())).message();
            assert!(message.contains(why), "{message}");
            assert!(!board.path().exists());

            // ATTACH cannot show the reason, but it fails, too.
            client.open("m", ":memory:", 0);
            let attach = format!("ATTACH '{}&{parameter}' AS board", board.kanban());
            assert!(client.sql("m", &attach).message().contains("unable to open"));
            assert!(!board.path().exists());
        }
    }
}

/// A misspelt pragma of ours is an error, and not ignored.
#[test]
fn an_unknown_pragma_is_named() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    let error = connection.query_row("PRAGMA kanban_stauts", [], |_| Ok(())).unwrap_err();
    assert!(
        error.to_string().contains(
            "unknown pragma kanban_stauts; known: kanban_last_error, kanban_log, kanban_status"
        ),
        "{error}"
    );
}

/// A Rust program registers the VFS twice, with other names, with other options, and wrongly.
#[test]
fn registering_is_idempotent_and_errors_are_typed() {
    let options = Options::default().with_name("kanban-twice");
    assert_eq!(kanban_vfs::register(&options), Ok(()));
    assert_eq!(kanban_vfs::register(&options), Ok(()));
    let name = || "kanban-twice".to_owned();
    assert_eq!(
        kanban_vfs::register(&options.clone().with_base("unix-none")),
        Err(Error::NameTaken { name: name() })
    );
    assert_eq!(
        kanban_vfs::register(&Options::default().with_name("unix-none")),
        Err(Error::NameTaken { name: "unix-none".to_owned() })
    );
    assert_eq!(
        kanban_vfs::register(&options.clone().with_name("new").with_base("nowhere")),
        Err(Error::NoBaseVfs { name: "nowhere".to_owned() })
    );
    assert_eq!(
        kanban_vfs::register(&options.with_name("a\0b")),
        Err(Error::InvalidName { name: "a\0b".to_owned() })
    );
}

/// A Rust program with the crate linked in loads the extension, too. Of these two copies of the
/// VFS, the second finds the first and leaves it in place.
#[test]
fn the_extension_loads_beside_the_crate() {
    let board = Board::new();
    let connection = connect(&board.kanban());
    // SAFETY: the extension is this project's own.
    unsafe {
        let _guard = rusqlite::LoadExtensionGuard::new(&connection).unwrap();
        connection.load_extension(extension(), None::<&str>).unwrap();
    }
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let again = connect(&board.kanban());
    again.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let version: String = again.query_row("SELECT kanban_version()", [], |row| row.get(0)).unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

/// What both of the following tests do with an SQLite that ctypes has loaded.
const CTYPES: &str = r#"
import ctypes, sys
extension, path, *libraries = sys.argv[1:]
vfs = ctypes.CDLL(extension)
def register(library):
    message = ctypes.create_string_buffer(300)
    rc = vfs.kanban_vfs_register(ctypes.c_void_p(library._handle), 0, message, ctypes.c_size_t(300))
    return rc, message.value
def open_board(library, name):
    library.sqlite3_errmsg.restype = ctypes.c_char_p
    db = ctypes.c_void_p()
    rc = library.sqlite3_open_v2(name.encode(), ctypes.byref(db), 6, b"kanban")
    assert rc == 0, (name, rc, library.sqlite3_errmsg(db))
    return db
def run(library, db, sql):
    rc = library.sqlite3_exec(db, sql, None, None, None)
    assert rc == 0, (sql, rc, library.sqlite3_errmsg(db))
"#;

/// A process has two copies of SQLite. One was built without extension loading, as Qt's and Apple's
/// are, and passes its functions to nobody. The VFS serves both, whichever registers it first, and
/// calls each copy's own functions.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it is built for Linux")]
fn a_copy_of_sqlite_without_extension_loading_is_served_by_its_own_functions() {
    let (omit, debians) = (env!("OMIT_SQLITE"), "libsqlite3.so.0");
    for libraries in [[omit, debians], [debians, omit]] {
        let board = Board::new();
        let program = format!(
            "{CTYPES}
libraries = [ctypes.CDLL(library) for library in libraries]
for library in libraries: assert register(library) == (0, b''), register(library)
for nth, library in enumerate(libraries):
    db = open_board(library, path)
    run(library, db, b'CREATE TABLE IF NOT EXISTS t (x)')
    run(library, db, b'INSERT INTO t SELECT kanban_version()')
    library.sqlite3_close(db)
    memory = open_board(library, ':memory:')
    run(library, memory, b'SELECT kanban_version()')
    library.sqlite3_close(memory)
"
        );
        let path = board.path();
        python(&program, &[path.to_str().unwrap(), libraries[0], libraries[1]]);
        let check = connect(&board.stock());
        let rows: i64 = check.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }
}

/// An application unregisters the VFS, or shuts SQLite down, or removes all auto-extensions, and
/// registers the VFS again. Then the VFS is there again, with what it does when a connection opens.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it is built for Linux")]
fn the_vfs_is_registered_again_after_it_was_taken_out() {
    let board = Board::new();
    let program = format!(
        "{CTYPES}
library = ctypes.CDLL(libraries[0])
library.sqlite3_vfs_find.restype = ctypes.c_void_p
def take_out():
    library.sqlite3_vfs_unregister(ctypes.c_void_p(library.sqlite3_vfs_find(b'kanban')))
nothing = lambda: None
for act in nothing, library.sqlite3_reset_auto_extension, library.sqlite3_shutdown, take_out:
    act()
    assert register(library) == (0, b''), register(library)
    db = open_board(library, path)
    run(library, db, b'SELECT kanban_version()')
    library.sqlite3_close(db)
"
    );
    let path = board.path();
    python(&program, &[path.to_str().unwrap(), env!("NEWEST_SQLITE")]);
}
