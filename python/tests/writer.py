"""A worker: takes a number, looks at the board, writes a row. 20 times."""

import importlib
import sys
from typing import Any

import kanban_vfs


def open_board(name: str, path: str) -> Any:
    """A connection of that module."""
    module = importlib.import_module(name)
    kanban_vfs.register(module)
    if name == "apsw":
        connection = module.Connection(path, vfs="kanban")
        connection.set_busy_timeout(60_000)
        return connection
    return module.connect(kanban_vfs.uri(path), uri=True, isolation_level=None, timeout=60)


def main(name: str, path: str) -> None:
    cursor = open_board(name, path).cursor()
    cursor.execute("PRAGMA journal_mode=wal").fetchall()
    cursor.execute("CREATE TABLE IF NOT EXISTS tasks (n INTEGER)")
    for _ in range(20):
        cursor.execute("BEGIN IMMEDIATE")
        ((n,),) = cursor.execute("SELECT count(*) FROM tasks").fetchall()
        cursor.execute("INSERT INTO tasks VALUES (?)", (n,))
        cursor.execute("COMMIT")


if __name__ == "__main__":
    main(*sys.argv[1:])
