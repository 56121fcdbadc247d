"""The SQLite VFS ``kanban``: one fair, bounded, crash-safe write lock per database.

    import kanban_vfs

    board = kanban_vfs.connect("board.db")

:func:`connect` is :func:`sqlite3.connect` through the VFS. For everything else that opens
databases (SQLAlchemy, Django, ``pysqlite3``, ``apsw``), call :func:`register` once in each process
and give it :func:`uri` of the board as its name.

Start an application that you cannot change by ``python -m kanban_vfs run``.
"""


TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._connect import connect, status
    from ._register import RegistrationError, load, loadable_path, register
    from ._status import Counters, Guarantee, Holder, Status, Waiter
    from ._uri import uri

    __version__: str

#: The module of each name, imported when the name is first used: ``run`` makes every interpreter of an application
#: import this package, and most do not use it.
_HOMES = {
    "Counters": "_status",
    "Guarantee": "_status",
    "Holder": "_status",
    "RegistrationError": "_register",
    "Status": "_status",
    "Waiter": "_status",
    "connect": "_connect",
    "load": "_register",
    "loadable_path": "_register",
    "register": "_register",
    "status": "_connect",
    "uri": "_uri",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("kanban-vfs")
    elif name in _HOMES:
        from importlib import import_module

        found = getattr(import_module("." + _HOMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


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
