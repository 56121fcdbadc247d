"""Registering with whatever SQLite a module has."""

import ctypes
import re
import sqlite3
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import kanban_vfs
from kanban_vfs import _register

from conftest import ROOT, python


def test_versions_agree() -> None:
    """The package, the extension in it and the crate are of one version."""
    manifest = (ROOT / "Cargo.toml").read_text()
    version = re.findall('^version = "(.*)"$', manifest, re.MULTILINE)[0]
    assert kanban_vfs.__version__ == version
    board = kanban_vfs.connect(":memory:")
    assert board.execute("SELECT kanban_version()").fetchone() == (version,)


def test_each_module_registers(module: ModuleType, tmp_path: Any) -> None:
    """Again is harmless, and the board is opened with the VFS and that module's SQLite."""
    for _ in range(3):
        kanban_vfs.register(module)
    connection = _register._open(module, kanban_vfs.uri(tmp_path / "board.db"))
    ((said,),) = connection.cursor().execute("PRAGMA kanban_status").fetchall()
    version = module.sqlite_lib_version() if module.__name__ == "apsw" else module.sqlite_version
    assert f'"sqlite":"{version.partition("-")[0]}' in said and '"vfs":"kanban/unix"' in said


LOAD = """
import importlib, sys
import kanban_vfs
from kanban_vfs import _register
module = importlib.import_module(sys.argv[1])
class Connection(module.Connection):
    pass
connection = Connection(":memory:")
kanban_vfs.load(connection)
_register._open(module, "file::memory:?vfs=kanban")
print(kanban_vfs.loadable_path())
"""


def test_a_connection_loads(module: ModuleType) -> None:
    """Also one of a class that the application derived."""
    assert python(LOAD, module.__name__) == kanban_vfs.loadable_path() + "\n"


def test_the_shell_loads_it(tmp_path: Any) -> None:
    """The path is good for other programs."""
    load = f".load {kanban_vfs.loadable_path()}"
    said = subprocess.run(
        ["sqlite3", ":memory:", "-cmd", load, "SELECT kanban_version()"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout == kanban_vfs.__version__ + "\n"


def test_extension_loading_is_off_afterwards(module: ModuleType) -> None:
    """An SQL injection must not load libraries because the VFS was loaded."""
    connection = _register._open(module, ":memory:")
    kanban_vfs.load(connection)
    with pytest.raises(Exception, match="not authorized"):
        connection.cursor().execute("SELECT load_extension('x')").fetchall()


def test_the_environment_is_checked(module: ModuleType) -> None:
    """A malformed variable fails the registration by name, whichever way it goes."""
    program = (
        "import importlib, sys, kanban_vfs\n"
        "try: kanban_vfs.register(importlib.import_module(sys.argv[1]))\n"
        "except kanban_vfs.RegistrationError as error: print(error)\n"
    )
    said = python(program, module.__name__, KANBAN_BUSY_TIMEOUT="soon")
    assert "KANBAN_BUSY_TIMEOUT" in said and "soon" in said


def test_as_the_default(module: ModuleType, tmp_path: Any) -> None:
    """An application whose connection strings cannot change."""
    program = (
        "import importlib, sys, kanban_vfs\n"
        "module = importlib.import_module(sys.argv[1])\n"
        "kanban_vfs.register(module, make_default=True)\n"
        "board = getattr(module, 'connect', module.Connection)(sys.argv[2])\n"
        "print(board.cursor().execute('PRAGMA kanban_status').fetchall()[0][0])\n"
    )
    said = python(program, module.__name__, str(tmp_path / "board.db"))
    assert '"vfs":"kanban/unix"' in said


class WithoutLoading:
    """A connection of a module that was built without extension loading."""

    def __init__(self, connection: Any):
        self.connection = connection

    def close(self) -> None:
        self.connection.close()


def without_loading(module: ModuleType) -> Any:
    """A module, were it built without extension loading."""

    def connect(name: str, uri: bool = False) -> WithoutLoading:
        return WithoutLoading(_register._open(module, name))

    return SimpleNamespace(
        __name__=module.__name__, __file__=module.__file__, connect=connect, sqlite_version=""
    )


@pytest.mark.parametrize("name", ["sqlite3", "pysqlite3"])
def test_without_extension_loading(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite that is a shared library, or exports its functions, needs no extension loading."""
    module = __import__(name)
    monkeypatch.setattr(_register, "_registered", set())
    kanban_vfs.register(without_loading(module))
    _register._open(module, "file::memory:?vfs=kanban").close()


def test_neither_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """apsw's SQLite hides its functions: could it not load extensions, nothing would be left."""
    apsw = pytest.importorskip("apsw")
    monkeypatch.setattr(_register, "_registered", set())
    with pytest.raises(kanban_vfs.RegistrationError) as raised:
        kanban_vfs.register(without_loading(apsw))
    assert "built without enable_load_extension" in str(raised.value)
    assert "pysqlite3-binary" in str(raised.value)
    assert not _register._registered


def test_the_wrong_sqlite_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the functions that are found those of another SQLite, nobody would find the VFS."""
    program = (
        "import apsw, sqlite3, kanban_vfs\n"
        "from kanban_vfs import _register\n"
        "import _sqlite3\n"
        "_register._native = lambda module: _sqlite3\n"
        "_register._loads_extensions = lambda connection: False\n"
        "try: kanban_vfs.register(apsw)\n"
        "except kanban_vfs.RegistrationError as error: print(error.__cause__)\n"
    )
    assert "no such vfs: kanban" in python(program)


def test_the_message_is_terminated() -> None:
    """Whatever happens, a caller in C can print it."""
    linked = ctypes.CDLL(getattr(_register._native(sqlite3), "__file__", None))
    function = ctypes.CDLL(kanban_vfs.loadable_path()).kanban_vfs_register
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    message = ctypes.create_string_buffer(b"x" * 20)
    assert function(linked._handle, 0, message, 0) == 0 and message.raw[:20] == b"x" * 20
    assert function(linked._handle, 0, message, 20) == 0 and message.value == b""


@pytest.mark.parametrize("loads", [True, False])
def test_not_built(loads: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is imported from its sources, whichever way its Python goes."""
    pysqlite3 = pytest.importorskip("pysqlite3")
    monkeypatch.setattr(_register, "_registered", set())
    monkeypatch.setattr(_register, "__file__", str(tmp_path / "_register.py"))
    with pytest.raises(kanban_vfs.RegistrationError, match="libkanban_vfs.so is not built: pip install"):
        kanban_vfs.register(pysqlite3 if loads else without_loading(pysqlite3))


def test_something_else_than_a_connection() -> None:
    with pytest.raises(TypeError, match="is no connection"):
        kanban_vfs.load(SimpleNamespace())  # type: ignore[arg-type]


def test_which_way_this_python_goes() -> None:
    """Says in the test's output what was tested; both ways lead to the interpreter's own SQLite."""
    way = "loads" if hasattr(sqlite3.Connection, "enable_load_extension") else "by symbols"
    print(sys.version.split()[0], sqlite3.sqlite_version, way)
    board = kanban_vfs.connect("file::memory:")
    assert board.execute("SELECT sqlite_version()").fetchone() == (sqlite3.sqlite_version,)
