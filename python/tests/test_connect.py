"""Names, arguments, status and errors."""

import os
import re
import sqlite3
from pathlib import Path
from typing import Any, Dict

import pytest

import kanban_vfs


@pytest.mark.parametrize(
    ("path", "parameters", "expected"),
    [
        ("board.db", {}, "file:board.db?vfs=kanban"),
        ("/a b?c#d%e&f.db", {}, "file:/a%20b%3Fc%23d%25e%26f.db?vfs=kanban"),
        (Path("/x/ü.db"), {}, "file:/x/%C3%BC.db?vfs=kanban"),
        (b"/x/\xff.db", {}, "file:/x/%FF.db?vfs=kanban"),
        ("//x/board.db", {}, "file:////x/board.db?vfs=kanban"),
        (Path("file:x?y"), {}, "file:file%3Ax%3Fy?vfs=kanban"),
        ("file:board.db", {}, "file:board.db?vfs=kanban"),
        ("file:board.db?mode=ro#top", {}, "file:board.db?mode=ro&vfs=kanban"),
        ("file:board.db?vfs=kanban&cache=private", {}, "file:board.db?vfs=kanban&cache=private"),
        (
            "board.db",
            {"mode": "ro", "kanban_busy_timeout": 7},
            "file:board.db?mode=ro&kanban_busy_timeout=7&vfs=kanban",
        ),
        ("board.db", {"vfs": "kanban2"}, "file:board.db?vfs=kanban2"),
    ],
)
def test_uris(path: Any, parameters: Dict[str, Any], expected: str) -> None:
    assert kanban_vfs.uri(path, **parameters) == expected


def test_uris_that_are_wrong() -> None:
    with pytest.raises(ValueError, match="names another VFS"):
        kanban_vfs.uri("file:board.db?vfs=unix")
    with pytest.raises(ValueError, match="has a parameter mode already"):
        kanban_vfs.uri("file:board.db?mode=ro", mode="rw")
    with pytest.raises(ValueError, match="NUL"):
        kanban_vfs.uri("board\0.db")


def test_every_name_is_that_files(tmp_path: Path) -> None:
    """The file that comes to be is the one that was named, to the byte."""
    names = [b"a b", b"a?b", b"a#b", b"a%41", b"a&vfs=unix", b"\xff\xfe", "ü€".encode(), b"file:x", b"a'\"\\"]
    for name in names:
        file = os.path.join(os.fsencode(tmp_path), name)
        for path in [file, os.fsdecode(file), Path(os.fsdecode(file)), b"//" + file.lstrip(b"/")]:
            board = kanban_vfs.connect(path)
            board.execute("CREATE TABLE IF NOT EXISTS t (x)")
            board.close()
    assert set(os.listdir(os.fsencode(tmp_path))) == set(names)


def test_arguments_are_sqlite3s(board: str) -> None:
    class Connection(sqlite3.Connection):
        pass

    opened = kanban_vfs.connect(board, timeout=1.25, isolation_level=None, factory=Connection, uri=True)
    assert isinstance(opened, Connection) and opened.isolation_level is None
    assert opened.execute("PRAGMA busy_timeout").fetchone() == (1250,)
    with pytest.raises(TypeError):
        kanban_vfs.connect(board, no_such_argument=1)
    with pytest.raises(sqlite3.OperationalError, match="kanban_no_such"):
        kanban_vfs.connect(kanban_vfs.uri(board, kanban_no_such=1))
    with pytest.raises(sqlite3.OperationalError):
        kanban_vfs.connect(kanban_vfs.uri(board + "2", mode="ro"))


def test_arguments_by_position(board: str) -> None:
    """A program that calls sqlite3.connect is changed by one word, however it gives its arguments."""
    for opened in [
        kanban_vfs.connect(board, 1.25),
        kanban_vfs.connect(board, 1.25, 0, None, True, sqlite3.Connection, 64, True),
        kanban_vfs.connect(database=board, timeout=1.25),
    ]:
        assert opened.execute("PRAGMA busy_timeout").fetchone() == (1250,)
    with pytest.raises(TypeError, match="timeout"):
        kanban_vfs.connect(board, 1.25, timeout=1.25)
    with pytest.raises(TypeError, match="at most 8"):
        kanban_vfs.connect(board, 1.25, 0, None, True, sqlite3.Connection, 64, True, 8)


def test_the_busy_timeout_that_was_set_outside(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite3 sets a timeout of 5 s in each connection that asks for none."""
    monkeypatch.setenv("KANBAN_BUSY_TIMEOUT", "1001")
    for path, arguments, expected in [
        (board, {}, 1001),
        (board, {"timeout": 2}, 2000),
        (kanban_vfs.uri(board, kanban_busy_timeout=70), {}, 70),
    ]:
        opened = kanban_vfs.connect(path, **arguments)
        assert opened.execute("PRAGMA busy_timeout").fetchone() == (expected,)
    monkeypatch.delenv("KANBAN_BUSY_TIMEOUT")
    assert kanban_vfs.connect(board).execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_status_of_a_board(board: str) -> None:
    writer = kanban_vfs.connect(board)
    writer.execute("CREATE TABLE t (x)")
    status = kanban_vfs.status(board)
    assert status.keys() == kanban_vfs.Status.__annotations__.keys()
    assert status["counters"].keys() == kanban_vfs.Counters.__annotations__.keys()
    assert status["database"] == os.path.realpath(board)
    assert status["sqlite"] == sqlite3.sqlite_version
    assert status["holder"] is None and status["queue"] == []
    assert status["guarantees"]["write_lock"] == {"active": True}
    assert status["group_commit"].keys() <= kanban_vfs.Guarantee.__annotations__.keys()
    assert status["counters"]["acquired"] >= 1
    assert kanban_vfs.status(Path(board)).keys() == status.keys()
    assert not kanban_vfs.status(kanban_vfs.uri(board, mode="ro"))["guarantees"]["write_lock"]["active"]

    writer.execute("BEGIN IMMEDIATE")
    holder = kanban_vfs.status(board)["holder"]
    assert holder is not None and not holder["gone"]
    assert holder.keys() == kanban_vfs.Holder.__annotations__.keys() - {"kept_by", "missing"}
    assert holder["this_process"] and not holder["this_connection"]


def test_status_makes_nothing(tmp_path: Path) -> None:
    """It neither makes a board, nor opens what is none."""
    missing = tmp_path / "missing.db"
    for path in [missing, str(missing), kanban_vfs.uri(missing), f"file://localhost{missing}"]:
        with pytest.raises(FileNotFoundError, match="missing.db"):
            kanban_vfs.status(path)
    with pytest.raises(FileNotFoundError) as raised:
        kanban_vfs.status(missing)
    assert raised.value.filename == str(missing)
    with pytest.raises(IsADirectoryError):
        kanban_vfs.status(tmp_path)
    assert os.listdir(tmp_path) == []
    missing.touch()
    with pytest.raises(ValueError, match="does nothing"):
        kanban_vfs.status(f"file:{missing}?immutable=1")
    kanban_vfs.status(missing)
    assert os.listdir(tmp_path) == ["missing.db"]


def test_status_waits_for_no_pipe(tmp_path: Path) -> None:
    """Opening one for reading ends when somebody writes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in [pipe, kanban_vfs.uri(pipe, mode="ro"), "/dev/null"]:
        with pytest.raises(ValueError, match="is no regular file"):
            kanban_vfs.status(path)


def test_status_of_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so nobody asks. He may search the directory, but not those above."""
    file = tmp_path / "unreadable.db"
    file.touch(mode=0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError) as raised:
            kanban_vfs.status(file.name)
    finally:
        os.seteuid(user)
    assert raised.value.filename == file.name and os.stat(file.name).st_size == 0


def test_a_failed_open_has_its_reason(board: str, tmp_path: Path) -> None:
    """Python says "unable to open database file". The VFS has said which file and why: a note on the error has it, from
    the Python on that has notes, and what was said before has no part in it."""
    with pytest.raises(sqlite3.OperationalError) as first:
        kanban_vfs.connect(kanban_vfs.uri(board, kanban_no_such=1))
    with pytest.raises(sqlite3.OperationalError) as second:
        kanban_vfs.connect(tmp_path / "no such directory" / "board.db")
    if hasattr(first.value, "add_note"):
        (note,) = first.value.__notes__
        assert re.match(r"20\d\d-\d\d-\d\dT[\d:.]+Z process \d+ \(", note) and "kanban_no_such" in note
        assert f" process {os.getpid()} " in note
        # The operating system's VFS has refused it, before this one could say anything.
        assert not hasattr(second.value, "__notes__")


def test_the_last_error_of_a_connection(board: str) -> None:
    """Python says "database is locked"; the connection itself knows by whom."""
    holder = kanban_vfs.connect(board, isolation_level=None)
    holder.execute("CREATE TABLE tasks (n INTEGER)")
    waiter = kanban_vfs.connect(board, isolation_level=None, timeout=0.05)
    assert waiter.execute("PRAGMA kanban_last_error").fetchall() == []
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        waiter.execute("BEGIN IMMEDIATE")
    ((line,),) = waiter.execute("PRAGMA kanban_last_error").fetchall()
    assert "SQLITE_BUSY (5)" in line and f"process {os.getpid()} " in line and os.path.realpath(board) in line
