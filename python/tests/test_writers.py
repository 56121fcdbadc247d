"""Many workers write to one board."""

import os
import sqlite3
from pathlib import Path
from types import ModuleType

import kanban_vfs

from conftest import python, run_at_once

WRITER = str(Path(__file__).with_name("writer.py"))


def assert_all_there(board: str) -> None:
    connection = kanban_vfs.connect(board)
    rows = [n for (n,) in connection.execute("SELECT n FROM tasks ORDER BY n")]
    assert rows == list(range(160))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert os.path.exists(board + "-lock"), "the VFS was not used"


def test_eight_processes_lose_nothing(module: ModuleType, board: str) -> None:
    """Eight workers of one kind make a board and number its rows without a gap."""
    run_at_once([[WRITER, module.__name__, board]] * 8)
    assert_all_there(board)


def test_three_sqlites_on_one_board(board: str) -> None:
    """Workers with three copies of SQLite, of three versions, share a board."""
    modules = ["sqlite3", "pysqlite3", "apsw", "sqlite3", "pysqlite3", "apsw", "sqlite3", "apsw"]
    run_at_once([[WRITER, module, board] for module in modules])
    assert_all_there(board)


# A holder looks at its own wal-index inside a transaction. A stock process then tries to write.
LOOK_AT_THE_BOARD = """
import sqlite3, subprocess, sys, kanban_vfs
path, vfs = sys.argv[1:]
outsider = '''
import sqlite3, sys
board = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    board.execute("INSERT INTO tasks VALUES (2)")
    print("broke in")
except sqlite3.OperationalError as error:
    print(error)
'''
if vfs == "kanban":
    holder = kanban_vfs.connect(path, isolation_level=None)
else:
    holder = sqlite3.connect(path, isolation_level=None)
holder.execute("PRAGMA journal_mode=wal")
holder.execute("CREATE TABLE tasks (n INTEGER)")
holder.execute("BEGIN IMMEDIATE")
holder.execute("INSERT INTO tasks VALUES (1)")
open(path + "-shm", "rb").close()
said = subprocess.run([sys.executable, "-c", outsider, path], stdout=subprocess.PIPE, text=True, timeout=60)
print(said.stdout.strip())
"""


def test_a_holder_that_looks_at_its_files_keeps_its_lock(board: str) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it: on the stock VFS
    a stranger then writes into the holder's transaction."""
    assert python(LOOK_AT_THE_BOARD, board + "-stock", "unix") == "broke in\n"
    assert python(LOOK_AT_THE_BOARD, board, "kanban") == "database is locked\n"


def test_a_wait_is_bounded(board: str) -> None:
    """A worker waits for a holder as long as it was told to, and is refused; the status names the
    holder meanwhile."""
    holder = kanban_vfs.connect(board, isolation_level=None)
    holder.execute("CREATE TABLE tasks (n INTEGER)")
    holder.execute("BEGIN IMMEDIATE")
    status = kanban_vfs.status(board)
    assert status["holder"] is not None and status["holder"]["pid"] == os.getpid()
    waiter = kanban_vfs.connect(board, isolation_level=None, timeout=0.05)
    try:
        waiter.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        assert str(error) == "database is locked"
    else:
        raise AssertionError("two holders")
    holder.execute("COMMIT")
    waiter.execute("BEGIN IMMEDIATE")
