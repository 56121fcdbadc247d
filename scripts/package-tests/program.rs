//! A program of somebody who has the crate from the registry.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kanban_vfs::register(&kanban_vfs::Options::default())?;
    let _ = std::fs::remove_file("board.db");
    let board = rusqlite::Connection::open("file:board.db?vfs=kanban")?;
    board.execute_batch("CREATE TABLE tasks (title TEXT); INSERT INTO tasks VALUES ('tried')")?;
    let status: String = board.query_row("PRAGMA kanban_status", [], |row| row.get(0))?;
    assert!(status.contains("\"vfs\":\"kanban/"), "{status}");
    Ok(())
}
