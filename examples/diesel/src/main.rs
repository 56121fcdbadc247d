//! Writes tasks to a board with diesel, beside other writers: `cargo run -- board.db ada 20`.

use std::error::Error;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

diesel::table! {
    tasks {
        id -> Integer,
        who -> Text,
        n -> Integer,
    }
}

/// Opens a board, and makes it if it is new.
fn open(file: &str) -> Result<SqliteConnection, Box<dyn Error>> {
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    let mut board = SqliteConnection::establish(&format!("file:{file}?vfs=kanban"))?;
    board.batch_execute(
        "PRAGMA journal_mode=wal;
         CREATE TABLE IF NOT EXISTS tasks
             (id INTEGER PRIMARY KEY NOT NULL, who TEXT NOT NULL, n INTEGER NOT NULL)",
    )?;
    Ok(board)
}

/// Adds tasks, each in a transaction that looks at the board first: it must be immediate.
fn add(board: &mut SqliteConnection, who: &str, count: i32) -> Result<(), Box<dyn Error>> {
    for _ in 0..count {
        board.immediate_transaction(|board| {
            let n: i64 = tasks::table.count().get_result(board)?;
            let n = i32::try_from(n).unwrap_or(i32::MAX);
            diesel::insert_into(tasks::table)
                .values((tasks::who.eq(who), tasks::n.eq(n)))
                .execute(board)
        })?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [file, who, count] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: kanban-vfs-diesel FILE WHO TASKS")?;
    add(&mut open(&file)?, &who, count.parse()?)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Eight connections, each in a process of its own, number their tasks without a gap.
    #[test]
    fn eight_writers_lose_nothing() -> Result<(), Box<dyn Error>> {
        if let Ok(file) = std::env::var("KANBAN_BOARD") {
            return add(&mut open(&file)?, "a writer", 20);
        }
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("board.db").display().to_string();
        let this = std::env::current_exe()?;
        let mut writers = Vec::new();
        for _ in 0..8 {
            writers.push(
                Command::new(&this).env("KANBAN_BOARD", &file).stdout(Stdio::null()).spawn()?,
            );
        }
        for mut writer in writers {
            assert!(writer.wait()?.success());
        }
        let mut board = open(&file)?;
        add(&mut board, "the last", 1)?;
        assert!(directory.path().join("board.db-lock").exists(), "the VFS is not used");
        let numbers: Vec<i32> = tasks::table.order(tasks::n).select(tasks::n).load(&mut board)?;
        assert_eq!(numbers, (0..161).collect::<Vec<_>>());
        Ok(())
    }
}
