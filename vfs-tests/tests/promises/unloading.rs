//! The VFS can be unregistered while nothing is open.

use kanban_vfs::{Error, Options};
use vfs_tests::Board;

/// A program uses the VFS for one task and then unregisters it, but at first forgets to close a
/// connection.
#[test]
fn it_is_unregistered_when_nothing_is_open() {
    let name = "kanban-to-unload";
    let options = Options::default().with_name(name);
    kanban_vfs::register(&options).unwrap();
    let board = Board::new();
    let connection = rusqlite::Connection::open(board.uri(name)).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let in_use = Error::InUse { name: name.to_owned(), databases: 1 };
    assert_eq!(kanban_vfs::unregister(name), Err(in_use));
    drop(connection);
    assert_eq!(kanban_vfs::unregister(name), Ok(()));
    let gone = rusqlite::Connection::open(board.uri(name)).unwrap_err();
    assert!(gone.to_string().contains("no such vfs"), "{gone}");
    assert_eq!(kanban_vfs::unregister(name), Err(Error::NotRegistered { name: name.to_owned() }));

    kanban_vfs::register(&options).unwrap();
    let connection = rusqlite::Connection::open(board.uri(name)).unwrap();
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
}

/// An open that was refused, or that failed in the base VFS, does not prevent that.
#[test]
fn failed_opens_count_for_nothing() {
    let name = "kanban-failing";
    kanban_vfs::register(&Options::default().with_name(name)).unwrap();
    let board = Board::new();
    for uri in [
        format!("{}&kanban_unknown=1", board.uri(name)),
        format!("{}&mode=ro", board.uri(name)),
        format!("file:{}/no/such/directory/board.db?vfs={name}", board.directory().display()),
    ] {
        rusqlite::Connection::open(&uri).expect_err(&uri);
    }
    assert_eq!(kanban_vfs::unregister(name), Ok(()));
    assert_eq!(board.directory().read_dir().unwrap().count(), 0, "nothing was created");
}
