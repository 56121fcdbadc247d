"""What scripts/memory-check.sh runs in Debian's Python: boards in each journal mode, written, read,
waited for, refused, checkpointed, displaced and closed, and, given the argument `fork`, inherited."""

import os
import shutil
import sqlite3
import sys
import tempfile
import threading

extension = sys.argv[1]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)


def connect(path, more="", timeout=5):
    uri = f"file:{path}?vfs=kanban{more}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout,
                           check_same_thread=False)


def refused(statement, connection):
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        return str(error)
    raise AssertionError(f"not refused: {statement}")


def count(connection):
    return connection.execute("SELECT count(*) FROM tasks").fetchone()[0]


def use(path, mode):
    board, other = connect(path), connect(path, timeout=0.02)
    assert board.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode
    board.execute("CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT)")
    for _ in range(3):
        board.execute("INSERT INTO tasks (title) VALUES (hex(randomblob(4000)))")
    board.execute("BEGIN IMMEDIATE")
    assert "locked" in refused("BEGIN IMMEDIATE", other)
    assert other.execute("PRAGMA kanban_status").fetchone()[0].startswith("{")
    assert "kanban" in refused("PRAGMA kanban_nothing", other)
    # A waiter that gets its turn.
    waits = threading.Thread(target=lambda: patient.execute("DELETE FROM tasks WHERE id = 1"))
    patient = connect(path)
    waits.start()
    board.execute("INSERT INTO tasks (title) VALUES ('fourth')")
    board.execute("COMMIT")
    waits.join()
    patient.close()
    # A look at its own file.
    with open(path, "rb") as file:
        file.read(16)
    board.execute("BEGIN IMMEDIATE")
    board.execute("INSERT INTO tasks (title) VALUES ('never')")
    child = os.fork() if "fork" in sys.argv else None
    if child == 0:
        refused("COMMIT", board)
        board.close()
        own = connect(path)
        assert count(own) == 3
        own.close()
        # As programs end, and as valgrind looks for leaks.
        sys.exit(0)
    if child is not None:
        assert os.waitpid(child, 0)[1] == 0
    board.execute("ROLLBACK")
    assert count(other) == 3
    if mode == "wal":
        for kind in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            board.execute(f"PRAGMA wal_checkpoint({kind})")
    board.execute("VACUUM")
    other.close()
    board.execute("INSERT INTO tasks (title) VALUES ('last')")
    board.close()
    again = connect(path)
    assert count(again) == 4
    assert again.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    # One that was renamed under its connection.
    os.rename(path, path + ".away")
    assert refused("INSERT INTO tasks (title) VALUES ('lost')", again)
    os.rename(path + ".away", path)
    again.execute("PRAGMA locking_mode=exclusive")
    again.execute("INSERT INTO tasks (title) VALUES ('fifth')")
    again.close()


directory = tempfile.mkdtemp()
for mode in ("wal", "delete", "truncate", "persist"):
    use(f"{directory}/{mode}.db", mode)
readable = connect(f"{directory}/wal.db", "&mode=ro")
assert count(readable) == 5
readable.close()
for wrong in ("&kanban_nothing=1", "&kanban_busy_timeout=x"):
    try:
        connect(f"{directory}/wrong.db", wrong)
    except sqlite3.OperationalError:
        continue
    raise AssertionError(wrong)
loader.close()
shutil.rmtree(directory)
