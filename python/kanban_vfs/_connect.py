"""Connections of the standard library's module."""

import errno
import json
import os
import sqlite3
import stat
from contextlib import closing
from datetime import datetime, timezone
from typing import Any, cast

from ._register import last_line, register
from ._status import Status
from ._uri import Path, file_of, parameter_of, uri


#: The arguments of :func:`sqlite3.connect` after the database, in their order.
_POSITIONS = (
    "timeout",
    "detect_types",
    "isolation_level",
    "check_same_thread",
    "factory",
    "cached_statements",
    "uri",
)


def connect(database: Path, *positional: Any, **arguments: Any) -> sqlite3.Connection:
    """Opens a database through the VFS: :func:`sqlite3.connect`, whose arguments it takes.

    ``database`` is the name of a file, or a ``file:`` URI with parameters of its own:
    ``connect(kanban_vfs.uri("board.db", mode="ro"))``. A string that begins with ``file:`` is always a
    URI, whatever ``uri`` is; ``Path("file:x")`` is a file of that name.

    A transaction that reads before it writes must begin with BEGIN IMMEDIATE to be queued, unless the
    parameter ``kanban_begin`` or the variable ``KANBAN_BEGIN`` is ``immediate`` or ``auto``. With
    ``isolation_level="IMMEDIATE"`` Python begins its transactions so. ``timeout``, in seconds, is how long
    a transaction waits for its turn. If it is not given, the parameter ``kanban_busy_timeout`` counts, or the
    variable ``KANBAN_BUSY_TIMEOUT``, both in ms, or else Python's default of 5 s.

    Raises:
        RegistrationError: As :func:`kanban_vfs.register`.
        ValueError: As :func:`kanban_vfs.uri`.
        TypeError: As :func:`sqlite3.connect`.
        sqlite3.OperationalError: The file cannot be opened, or a parameter is wrong. From Python 3.11 on, the
            error has a note with the reason, if the VFS logged one. For later errors of the connection, ask
            ``PRAGMA kanban_last_error``.
    """
    if len(positional) > len(_POSITIONS):
        raise TypeError(f"connect() takes at most {len(_POSITIONS) + 1} positional arguments")
    for name, value in zip(_POSITIONS, positional):
        if name in arguments:
            raise TypeError(f"connect() got multiple values for argument {name!r}")
        arguments[name] = value
    register()
    arguments["uri"] = True
    name = uri(database)
    # Otherwise sqlite3 sets its own default, which replaces the VFS's.
    ms = parameter_of(name, "kanban_busy_timeout") or os.environ.get("KANBAN_BUSY_TIMEOUT", "")
    # The VFS itself refuses wrong values.
    is_valid = ms.isascii() and ms.isdecimal() and len(ms) <= 10 and int(ms) < 2**31
    if "timeout" not in arguments and is_valid:
        # sqlite3 cuts off fractions of a millisecond.
        arguments["timeout"] = (int(ms) + 0.5) / 1000
    before = datetime.now(timezone.utc)
    try:
        board: sqlite3.Connection = sqlite3.connect(name, **arguments)
    except sqlite3.Error as error:
        why = last_line(before)
        if why and hasattr(error, "add_note"):
            error.add_note(why)
        raise
    return board


def status(path: Path) -> Status:
    """What the VFS says about a board: who holds the write lock, who waits, which guarantees hold
    for a connection of this process. It waits for nothing, locks nothing and creates nothing.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: There is no such file to read.
        ValueError: The file is a pipe or a device, or the VFS does nothing for this database
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
