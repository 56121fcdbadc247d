//! Writes tasks to a board with rusqlite, beside other writers:
//!
//! ```sh
//! cargo run --release --example rusqlite -- board.db ada 20
//! ```

use std::error::Error;

use rusqlite::{Connection, TransactionBehavior};

/// Opens a board, and makes it if it is new.
fn open(file: &str) -> Result<Connection, Box<dyn Error>> {
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    let board = Connection::open(format!("file:{file}?vfs=kanban"))?;
    board.pragma_update(None, "journal_mode", "wal")?;
    board.execute_batch(
        "CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, who TEXT, n INTEGER)",
    )?;
    Ok(board)
}

/// Adds tasks, each in a transaction that looks at the board first: it must be immediate.
fn add(board: &mut Connection, who: &str, count: u32) -> rusqlite::Result<()> {
    for _ in 0..count {
        let transaction = board.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let n: i64 = transaction.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0))?;
        transaction.execute("INSERT INTO tasks (who, n) VALUES (?, ?)", (who, n))?;
        transaction.commit()?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [file, who, count] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: rusqlite FILE WHO TASKS")?;
    Ok(add(&mut open(&file)?, &who, count.parse()?)?)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// What the documents show, beside a board of its own.
    #[test]
    fn as_the_documents_show() -> Result<(), Box<dyn Error>> {
        if std::env::var_os("KANBAN_AS_SHOWN").is_some() {
            kanban_vfs::register(&kanban_vfs::Options::default())?;
            let mut board = rusqlite::Connection::open("file:board.db?vfs=kanban")?;
            let task = board.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            task.execute_batch("CREATE TABLE tasks (title TEXT)")?;
            assert!(std::path::Path::new("board.db-lock").exists(), "the VFS is not used");
            return Ok(task.commit()?);
        }
        let directory = tempfile::tempdir()?;
        let status = std::process::Command::new(std::env::current_exe()?)
            .arg("as_the_documents_show")
            .env("KANBAN_AS_SHOWN", "1")
            .current_dir(&directory)
            .stdout(Stdio::null())
            .status()?;
        assert!(status.success());
        Ok(())
    }

    /// Eight connections, each in a process of its own, number their tasks without a gap.
    #[test]
    fn eight_writers_lose_nothing() -> Result<(), Box<dyn Error>> {
        if let Ok(file) = std::env::var("KANBAN_BOARD") {
            return Ok(add(&mut open(&file)?, "a writer", 20)?);
        }
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("board.db").display().to_string();
        let this = std::env::current_exe()?;
        let mut writers = Vec::new();
        for _ in 0..8 {
            writers.push(
                std::process::Command::new(&this)
                    .env("KANBAN_BOARD", &file)
                    .stdout(Stdio::null())
                    .spawn()?,
            );
        }
        for mut writer in writers {
            assert!(writer.wait()?.success());
        }
        let mut board = open(&file)?;
        add(&mut board, "the last", 1)?;
        assert!(directory.path().join("board.db-lock").exists(), "the VFS is not used");
        let mut numbers = board.prepare("SELECT n FROM tasks ORDER BY n")?;
        let numbers: Vec<u32> =
            numbers.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        assert_eq!(numbers, (0..161).collect::<Vec<_>>());
        Ok(())
    }
}
