"""A worker of the kanban board that completes tasks until none can run, on SQLite through the VFS or on PostgreSQL.

Usage: worker.py NAME board.db [LIMIT] | worker.py NAME postgresql://... [LIMIT]. What differs is in `Board.__init__`, `begin` and `CLAIM`.
"""

import sys
import time


class Board:
    """An open board. Each step is one transaction."""

    def __init__(self, where: str) -> None:
        self.is_server = where.startswith("postgresql:")
        if self.is_server:
            import psycopg

            self.connection = psycopg.connect(where, autocommit=True)
        else:
            import kanban_vfs

            self.connection = kanban_vfs.connect(where, isolation_level=None, timeout=30)

    #: SQLite has one writer, so no other worker can take the oldest task. A server has many: each skips what others have locked.
    CLAIM = """
        UPDATE tasks SET status = 'running', worker = {p} WHERE id = (
            SELECT id FROM tasks AS t WHERE status = 'ready' AND NOT EXISTS (
                SELECT 1 FROM dependencies JOIN tasks AS needed ON needed.id = needs
                WHERE task = t.id AND needed.status <> 'done'
            ) ORDER BY id LIMIT 1 {skip}) RETURNING id"""

    def run(self, sql: str, *values: object) -> list:
        """One statement, with the marks that the driver wants."""
        text = sql.format(p="%s" if self.is_server else "?", skip="FOR UPDATE SKIP LOCKED" if self.is_server else "")
        cursor = self.connection.execute(text, values)
        return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        self.run("BEGIN" if self.is_server else "BEGIN IMMEDIATE")

    def claim(self, worker: str) -> "int | None":
        """The oldest task that can run, now this worker's."""
        self.begin()
        rows = self.run(self.CLAIM, worker)
        if rows:
            self.run("INSERT INTO runs (task, worker, started_ms) VALUES ({p}, {p}, {p})", rows[0][0], worker, time.time_ns() // 10**6)
        self.run("COMMIT")
        return rows[0][0] if rows else None

    def complete(self, worker: str, task: int) -> None:
        """Ends a task well."""
        self.begin()
        self.run("UPDATE tasks SET status = 'done' WHERE id = {p} AND worker = {p}", task, worker)
        self.run("UPDATE runs SET ended_ms = {p}, outcome = 'done' WHERE task = {p}", time.time_ns() // 10**6, task)
        self.run("INSERT INTO events (task, at_ms, what) VALUES ({p}, {p}, {p})", task, time.time_ns() // 10**6, f"completed by {worker}")
        self.run("COMMIT")


def main() -> None:
    worker, where = sys.argv[1:3]
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else sys.maxsize
    board = Board(where)
    done = 0
    while done < limit and (task := board.claim(worker)) is not None:
        board.complete(worker, task)
        done += 1
    print(f"{worker}: {done} done")


if __name__ == "__main__":
    main()
