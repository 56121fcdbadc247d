"""Registering the VFS with the SQLite of a Python module.

There are two ways. A module that can load extensions loads the VFS. The sqlite3 of many Pythons cannot
(it has no ``enable_load_extension``). But its SQLite is a shared library, or exports its functions: the
extension's own ``kanban_vfs_register`` (include/kanban_vfs.h) finds them from the file of the module
that is linked with that SQLite.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from types import ModuleType
    from typing import Any, Optional, Protocol, Set, Tuple

    class Connection(Protocol):
        """A connection of :mod:`sqlite3`, ``pysqlite3`` or ``apsw``."""

        def cursor(self) -> "Any":
            """A cursor."""


SQLITE_OK = 0
SQLITE_NOTFOUND = 12


class RegistrationError(RuntimeError):
    """The VFS could not be registered; the message says why, and what to do."""


#: Which modules the VFS was registered with, and whether as their default. A module that is
#: registered twice because two threads did it at once does no harm.
_registered: "Set[Tuple[str, bool]]" = set()


def loadable_path() -> str:
    """The file of the extension, for a program that loads it itself (the ``sqlite3`` shell's
    ``.load``, Node, a C program).

    Raises:
        RegistrationError: The package was imported from its sources, without being installed.
    """
    library = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libkanban_vfs.so")
    if not os.path.exists(library):
        raise RegistrationError(f"{library} is not built: pip install ./python")
    return library


def register(module: "Optional[ModuleType]" = None, *, make_default: bool = False) -> None:
    """Registers the VFS with the SQLite that ``module`` uses: :mod:`sqlite3` (the default), ``pysqlite3`` or
    ``apsw``. One call in each process is enough; more calls are harmless and cheap.

    With ``make_default`` connections that name no VFS get it as well: for applications whose
    connection strings cannot change. Processes that this one starts, other than by fork(2), know nothing of
    it: ``python -m kanban_vfs run`` and ``KANBAN_VFS_DEFAULT=1`` see to them.

    The environment variables ``KANBAN_BUSY_TIMEOUT`` and others set its defaults.

    Raises:
        RegistrationError: The module cannot load extensions and its SQLite hides its functions; or
            the SQLite is older than 3.31; or an environment variable is malformed; or the
            extension was not built.
    """
    if module is None:
        import sqlite3

        module = sqlite3
    done = (name_of(module), make_default)
    if done in _registered:
        return
    connection = _open(module, ":memory:")
    try:
        if _loads_extensions(connection):
            _load(connection, make_default)
        else:
            _register_by_symbols(module, make_default)
    finally:
        connection.close()
    _registered.add(done)


def load(connection: "Connection") -> None:
    """Registers the VFS with the SQLite of an open connection, as :func:`register` does with the SQLite
    of a module. If the connection can load extensions, it also gets the SQL function
    ``kanban_version()``. Loading is switched off again afterwards, as SQLite advises.

    The connection itself stays on the VFS with which it was opened.

    Raises:
        RegistrationError: As :func:`register`.
        TypeError: The object is not a connection of a known module.
    """
    if _loads_extensions(connection):
        _load(connection, False)
    else:
        register(_module_of(connection))


def _open(module: "ModuleType", name: str) -> "Any":
    if hasattr(module, "connect"):
        return module.connect(name, uri=True)
    flags = module.SQLITE_OPEN_READWRITE | module.SQLITE_OPEN_CREATE | module.SQLITE_OPEN_URI
    return module.Connection(name, flags=flags)


def _loads_extensions(connection: "Any") -> bool:
    return hasattr(connection, "enable_load_extension")


def _load(connection: "Any", make_default: bool) -> None:
    entry = "sqlite3_kanbanvfs_default_init" if make_default else "sqlite3_kanbanvfs_init"
    connection.enable_load_extension(True)
    try:
        # Not load_extension(), which takes no entry point in sqlite3 before Python 3.12.
        cursor = connection.cursor()
        cursor.execute("SELECT load_extension(?, ?)", (loadable_path(), entry)).fetchall()
    except Exception as error:  # Each module has a class of its own.
        raise RegistrationError(str(error)) from error
    finally:
        connection.enable_load_extension(False)


def _register_by_symbols(module: "ModuleType", make_default: bool) -> None:
    import ctypes

    native = _native(module)
    # A module that is built into the interpreter has no file: its functions are the program's.
    # Both are loaded already or stay loaded: ctypes never unloads a library.
    linked = ctypes.CDLL(getattr(native, "__file__", None))
    function = ctypes.CDLL(loadable_path()).kanban_vfs_register
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    function.restype = ctypes.c_int
    message = ctypes.create_string_buffer(500)
    rc: int = function(linked._handle, make_default, message, len(message))
    if rc == SQLITE_NOTFOUND:
        raise RegistrationError(_no_way(module))
    if rc != SQLITE_OK:
        raise RegistrationError(message.value.decode() or "kanban-vfs: a panic, see standard error")
    try:
        _open(module, "file::memory:?vfs=kanban").close()
    except Exception as error:
        # The functions that were found belong to another copy of SQLite in this process.
        raise RegistrationError(_no_way(module)) from error


def last_line(since: "datetime") -> "Optional[str]":
    """The last line that the VFS has logged on this thread, unless it is older than that time."""
    import ctypes

    function = ctypes.CDLL(loadable_path()).kanban_vfs_last_line
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    function.restype = ctypes.c_size_t
    line = ctypes.create_string_buffer(4096)
    function(line, len(line))
    said = line.value.decode(errors="replace")
    return said if said.partition(" ")[0] > since.strftime("%Y-%m-%dT%H:%M:%S.%fZ") else None


def _no_way(module: "ModuleType") -> str:
    return (
        f"the VFS cannot be registered with {name_of(module)}: it was built without"
        " enable_load_extension, and the SQLite inside it hides its functions. Use a Python whose"
        " sqlite3 can load extensions (Debian's can) or that uses the system's SQLite, or the"
        " package pysqlite3-binary or apsw: kanban_vfs.register(pysqlite3)"
    )


def name_of(module: "ModuleType") -> str:
    """The name by which an application imports a module, which may be the module in C."""
    return "sqlite3" if module.__name__ == "_sqlite3" else module.__name__.partition(".")[0]


def _native(module: "ModuleType") -> "ModuleType":
    """The module in C that calls SQLite."""
    root = name_of(module)
    name = "_sqlite3" if root == "sqlite3" else f"{root}._sqlite3"
    return sys.modules.get(name, module)


def _module_of(connection: object) -> "ModuleType":
    """The module that made a connection, whose class may be one that an application derived."""
    for ancestor in type(connection).__mro__:
        module = sys.modules.get(ancestor.__module__.partition(".")[0])
        if module is not None and hasattr(module, "sqlite_version"):
            return module
    raise TypeError(f"{connection!r} is no connection of sqlite3, pysqlite3 or apsw")
