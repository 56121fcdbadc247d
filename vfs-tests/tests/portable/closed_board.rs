//! What a client leaves behind when it closes a board: no lock, no open file.

use std::fs;

use serde_json::json;
use vfs_tests::{Agent, Board, STOCK_VFS};

use crate::{agent, until_waiters};

/// A gateway has used a board, and waited for its lock, and goes on running without it. The board can
/// be renamed and deleted with its directory, which Windows refuses as long as anybody has one of the
/// files open. While it is open, it can be renamed where it could be with the stock VFS.
#[test]
fn a_board_that_is_closed_can_be_moved_and_deleted() {
    let mut could_be_moved = Vec::new();
    for vfs in [STOCK_VFS, "kanban"] {
        let board = Board::new();
        let here = board.directory().join("here");
        let there = board.directory().join("there");
        fs::create_dir(&here).unwrap();
        let (path, moved) = (here.join("board.db"), here.join("moved.db"));
        let uri = vfs_tests::uri_of(&path, vfs);
        let (mut first, mut second) = (agent(), agent());
        for mode in ["delete", "wal"] {
            first.open("c", &uri, 60_000);
            second.open("c", &uri, 60_000);
            first.sql("c", &format!("PRAGMA journal_mode={mode}")).rows();
            first.sql("c", "CREATE TABLE IF NOT EXISTS t (x); BEGIN IMMEDIATE").rows();
            second.send_sql("c", "INSERT INTO t VALUES (1)");
            if vfs == "kanban" {
                until_waiters(&mut first, "c", 1);
            }
            first.sql("c", "COMMIT").rows();
            second.reply().rows();
            let is_moved = fs::rename(&path, &moved).is_ok();
            could_be_moved.push(is_moved);
            if is_moved {
                fs::rename(&moved, &path).unwrap();
            }
            first.close("c");
            second.close("c");
        }
        fs::rename(&here, &there).unwrap();
        fs::remove_dir_all(&there).unwrap();
        let alive = |client: &mut Agent| client.call(&json!(["descriptors"])).rows().len();
        assert_eq!((alive(&mut first), alive(&mut second)), (1, 1), "both still run");
    }
    assert_eq!(could_be_moved, [cfg!(unix); 4]);
}

/// A dashboard opens the board for each look, and writes. After hundreds of them, in the way of another
/// process, it has no more files, events or timers open than after a few.
#[test]
fn nothing_stays_open() {
    let board = Board::new();
    let (mut other, mut client) = (agent(), agent());
    other.open("o", &board.kanban(), 60_000);
    other.sql("o", "PRAGMA journal_mode=wal; CREATE TABLE t (x)").rows();
    let mut rounds = |n| {
        for _ in 0..n {
            client.open("c", &board.kanban(), 60_000);
            other.sql("o", "BEGIN IMMEDIATE").rows();
            client.send_sql("c", "INSERT INTO t VALUES (1)");
            until_waiters(&mut other, "o", 1);
            other.sql("o", "COMMIT").rows();
            client.reply().rows();
            client.close("c");
        }
        client.call(&json!(["descriptors"])).rows()[0][0].as_u64().unwrap()
    };
    let (few, many) = (rounds(5), rounds(200));
    assert!(many < few + 20, "{few} descriptors at first, {many} later");
}
