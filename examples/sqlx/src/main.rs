//! Writes tasks to a board with sqlx, beside other writers: `cargo run -- board.db ada 20`.

use std::error::Error;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};

/// Opens a board, and makes it if it is new.
async fn open(file: &str) -> Result<SqlitePool, Box<dyn Error>> {
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .vfs("kanban")
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(5));
    let board = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS tasks
             (id INTEGER PRIMARY KEY NOT NULL, who TEXT NOT NULL, n INTEGER NOT NULL)",
    )
    .execute(&board)
    .await?;
    Ok(board)
}

/// Adds tasks, each in a transaction that looks at the board first: it must be immediate.
async fn add(board: &SqlitePool, who: &str, count: u32) -> Result<(), sqlx::Error> {
    for _ in 0..count {
        let mut task = board.begin_with("BEGIN IMMEDIATE").await?;
        let n: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks").fetch_one(&mut *task).await?;
        sqlx::query("INSERT INTO tasks (who, n) VALUES (?, ?)")
            .bind(who)
            .bind(n)
            .execute(&mut *task)
            .await?;
        task.commit().await?;
    }
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}

fn main() -> Result<(), Box<dyn Error>> {
    let [file, who, count] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: kanban-vfs-sqlx FILE WHO TASKS")?;
    runtime()?.block_on(async { Ok(add(&open(&file).await?, &who, count.parse()?).await?) })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Eight processes, each of which writes by four connections at once, with a thread of sqlx for each, number their tasks
    /// without a gap.
    #[test]
    fn eight_writers_lose_nothing() -> Result<(), Box<dyn Error>> {
        if let Ok(file) = std::env::var("KANBAN_BOARD") {
            return runtime()?.block_on(async {
                let board = open(&file).await?;
                let at_once = (0..4).map(|_| {
                    let board = board.clone();
                    tokio::spawn(async move { add(&board, "a writer", 5).await })
                });
                // Not one after the other: spawned before the first is waited for.
                for writer in at_once.collect::<Vec<_>>() {
                    writer.await??;
                }
                Ok(())
            });
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
        runtime()?.block_on(async {
            let board = open(&file).await?;
            add(&board, "the last", 1).await?;
            let status: String =
                sqlx::query_scalar("PRAGMA kanban_status").fetch_one(&board).await?;
            assert!(status.contains("\"vfs\":\"kanban/"), "the VFS is not used: {status}");
            let numbers: Vec<i64> =
                sqlx::query_scalar("SELECT n FROM tasks ORDER BY n").fetch_all(&board).await?;
            assert_eq!(numbers, (0..161).collect::<Vec<_>>());
            Ok(())
        })
    }
}
