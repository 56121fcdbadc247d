"""Connections of the standard library's module."""

import errno
import json
import os
import sqlite3
import stat
from contextlib import closing
from typing import Any, cast

from ._register import register
from ._status import Status
from ._uri import Path, file_of, uri


def connect(path: Path, **arguments: Any) -> sqlite3.Connection:
    """Opens a database through the VFS: :func:`sqlite3.connect`, whose ``arguments`` it takes.

    ``path`` is the name of a file, or a ``file:`` URI with parameters of its own:
    ``connect(kanban_vfs.uri("board.db", mode="ro"))``. (``uri=True`` is understood.)

    A transaction that reads before it writes must begin with BEGIN IMMEDIATE to be queued. With
    ``isolation_level="IMMEDIATE"`` those that Python begins do. ``timeout``, in seconds, is how long
    it waits for its turn: Python's default is 5.

    Raises:
        RegistrationError: As :func:`kanban_vfs.register`.
        ValueError: As :func:`kanban_vfs.uri`.
        sqlite3.OperationalError: The file cannot be opened, or a parameter is wrong.
    """
    register()
    arguments["uri"] = True
    board: sqlite3.Connection = sqlite3.connect(uri(path), **arguments)
    return board


def status(path: Path) -> Status:
    """What the VFS says about a board: who holds the write lock, who waits, which guarantees hold
    for a connection of this process. It waits for nothing, locks nothing and creates nothing.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: There is no such file to read.
        ValueError: It is a pipe or a device, or the VFS does nothing for this database
            (``immutable=1``, ``nolock=1``).
        RegistrationError, sqlite3.OperationalError: As :func:`connect`.
    """
    # stat(2) and access(2), because closing a descriptor of a database drops the locks of this
    # process on it, and opening a pipe waits for its other end.
    file = os.fsdecode(file_of(path))
    kind = os.stat(file).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
    if not stat.S_ISREG(kind):
        raise ValueError(f"{file!r} is no regular file")
    if not os.access(file, os.R_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
    name = uri(path) if "mode=" in uri(path).partition("?")[2] else uri(path, mode="rw")
    with closing(connect(name)) as board:
        row = board.execute("PRAGMA kanban_status").fetchone()
    if row is None:
        raise ValueError(f"the VFS does nothing for {path!r}")
    return cast(Status, json.loads(row[0]))
