"""The SQLite VFS ``kanban``: one fair, bounded, crash-safe write lock per database.

    import kanban_vfs

    board = kanban_vfs.connect("board.db")

:func:`connect` is :func:`sqlite3.connect` through the VFS. For everything else that opens
databases (SQLAlchemy, Django, ``pysqlite3``, ``apsw``), call :func:`register` once in each process
and give it :func:`uri` of the board as its name.
"""

from ._connect import connect, status
from ._register import RegistrationError, load, loadable_path, register
from ._status import Counters, Guarantee, Holder, Status, Waiter
from ._uri import uri

__version__: str


def __getattr__(name: str) -> str:
    # It takes longer to import importlib.metadata than all the rest.
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("kanban-vfs")
        return str(globals()[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Counters",
    "Guarantee",
    "Holder",
    "RegistrationError",
    "Status",
    "Waiter",
    "__version__",
    "connect",
    "load",
    "loadable_path",
    "register",
    "status",
    "uri",
]
