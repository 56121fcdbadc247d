"""Two versions of the extension on one board; scripts/upgrade-tests.sh builds them. Each client is a process of its own,
and does what it reads, line by line. So a scene says which client does what, and in which order."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from typing import Callable, List

#: Longer than anything takes on a loaded machine.
PATIENCE = 60

CLIENT = r"""
import json, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
board = sqlite3.connect(f"file:{sys.argv[2]}?vfs=kanban", uri=True, isolation_level=None)
for line in sys.stdin:
    try:
        print(json.dumps(board.execute(json.loads(line)).fetchall()), flush=True)
    except sqlite3.Error as error:
        print(json.dumps(str(error)), flush=True)
"""


class Client:
    """A process with one connection."""

    def __init__(self, extension: str, board: str) -> None:
        arguments = [sys.executable, "-c", CLIENT, extension, board]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, sql: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(sql) + "\n")
        self.process.stdin.flush()

    def answer(self) -> "list[list[object]]":
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, list), answer
        return answer

    def sql(self, sql: str) -> "list[list[object]]":
        self.ask(sql)
        return self.answer()

    def lock(self) -> "dict[str, object]":
        """What it says of the write lock."""
        status = json.loads(str(self.sql("PRAGMA kanban_status")[0][0]))
        found: "dict[str, object]" = status["guarantees"]["write_lock"]
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)


def layout(board: str) -> int:
    """That of the sidecar."""
    with open(f"{board}-lock", "rb") as sidecar:
        page = sidecar.read(16)
    assert page[:11] == b"kanban-vfs\0", page
    return int.from_bytes(page[12:], "little")


def until(holds: Callable[[], bool], what: str) -> None:
    """Waits for something that comes within a second or so."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE, what
        time.sleep(0.05)


def write(clients: List[Client], rows: int) -> None:
    """All write at once, each row in a transaction of its own."""
    for n in range(rows):
        for client in clients:
            client.ask(f"INSERT INTO tasks VALUES ({n})")
        for client in clients:
            client.answer()


def first_client(extension: str, board: str) -> Client:
    """It makes the board, and with that the sidecar."""
    client = Client(extension, board)
    client.sql("PRAGMA journal_mode=wal")
    client.sql("CREATE TABLE tasks (n INTEGER)")
    return client


def killed_client(extension: str, board: str) -> None:
    """It makes the board, and is killed while it has the write lock: its sidecar stays."""
    client = first_client(extension, board)
    client.sql("BEGIN IMMEDIATE")
    client.kill()


def whole(board: str, rows: int) -> None:
    """A stock client finds all rows."""
    stock = sqlite3.connect(board)
    assert stock.execute("SELECT count(*) FROM tasks").fetchone() == (rows,)
    assert stock.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stock.close()


def whole_and_alone(board: str, rows: int) -> None:
    """So it does, and nothing is left behind but an event log, if there was an event."""
    left = {os.path.basename(path) for path in (board, f"{board}-kanban-log")}
    assert set(os.listdir(os.path.dirname(board))) <= left, os.listdir(os.path.dirname(board))
    whole(board, rows)


def the_older_one_came_first(older: str, newer: str, board: str) -> None:
    """The upgrade has begun: a worker of the new version starts beside those of the old one."""
    first = first_client(older, board)
    second = Client(newer, board)
    write([first, second], 30)
    assert layout(board) == 1
    assert first.lock()["active"] and not second.lock()["active"], second.lock()
    assert "older version" in str(second.lock()["why"]), second.lock()
    # A writer of the one version keeps the other out, by SQLite's own lock.
    first.sql("BEGIN IMMEDIATE")
    second.sql("PRAGMA busy_timeout=50")
    second.ask("BEGIN IMMEDIATE")
    assert second.process.stdout is not None
    assert json.loads(second.process.stdout.readline()) == "database is locked"
    first.sql("COMMIT")
    second.sql("PRAGMA busy_timeout=5000")
    first.close()

    def is_renewed() -> bool:
        second.sql("INSERT INTO tasks VALUES (0)")
        second.sql("DELETE FROM tasks WHERE rowid = last_insert_rowid()")
        return bool(second.lock()["active"])

    until(is_renewed, "the newer one has no write lock")
    assert layout(board) == 3
    second.close()
    whole_and_alone(board, 60)


def the_newer_one_came_first(older: str, newer: str, board: str) -> None:
    """A worker that was forgotten still runs the old version."""
    first = first_client(newer, board)
    second = Client(older, board)
    write([first, second], 30)
    assert layout(board) == 3
    assert first.lock()["active"] and not second.lock()["active"], second.lock()
    second.close()
    assert first.lock()["active"] and layout(board) == 3
    first.close()
    whole_and_alone(board, 60)


def the_older_one_was_killed(older: str, newer: str, board: str) -> None:
    """Its sidecar stays, and the next client of the new version makes it its own."""
    killed_client(older, board)
    assert layout(board) == 1
    second = Client(newer, board)
    write([second], 5)
    assert second.lock()["active"] and layout(board) == 3
    second.close()
    whole_and_alone(board, 5)


def the_newer_one_was_killed(older: str, newer: str, board: str) -> None:
    """Somebody goes back to the old version: it writes without a queue until the sidecar is deleted."""
    killed_client(newer, board)
    second = Client(older, board)
    write([second], 5)
    assert not second.lock()["active"] and layout(board) == 3
    second.close()
    os.remove(f"{board}-lock")
    third = Client(older, board)
    write([third], 5)
    assert third.lock()["active"] and layout(board) == 1
    third.close()
    whole_and_alone(board, 10)


def one_from_the_future(_: str, newer: str, board: str) -> None:
    """A page of a layout that does not exist yet is left alone, and is not called somebody else's."""
    stock = sqlite3.connect(board)
    stock.execute("CREATE TABLE tasks (n INTEGER)")
    stock.close()
    page = b"kanban-vfs\0\0\x04\0\0\0" + b"\x55" * 4080
    with open(f"{board}-lock", "wb") as sidecar:
        sidecar.write(page)
    client = Client(newer, board)
    write([client], 5)
    why = str(client.lock()["why"])
    assert "newer version" in why and "move it away" not in why, why
    client.close()
    with open(f"{board}-lock", "rb") as sidecar:
        assert sidecar.read() == page
    whole(board, 5)


def main() -> None:
    scenes = [
        the_older_one_came_first,
        the_newer_one_came_first,
        the_older_one_was_killed,
        the_newer_one_was_killed,
        one_from_the_future,
    ]
    for scene in scenes:
        with tempfile.TemporaryDirectory() as directory:
            scene(sys.argv[1], sys.argv[2], f"{directory}/board.db")
        print(f"{scene.__name__}: ok", flush=True)


main()
