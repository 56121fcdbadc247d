"""The VFS as the default one of every SQLite that this interpreter imports.

The file ``kanban_vfs.pth``, which the package installs beside itself, imports this module when an interpreter starts, and
only if ``KANBAN_VFS_DEFAULT=1`` is in its environment (https://docs.python.org/3/library/site.html). So the VFS is also the
default one in the children of such a process: children of fork(2) inherit the registration, all others start an interpreter.

This module registers the VFS as soon as a C module that has an SQLite was imported, before the application can open a
database by it. (``sqlite3`` is a wrapper of such a module.) An application that imports none of them pays for one
look-up in a dictionary at each import.

This module imports only modules that the interpreter has imported already, since it is part of every start.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.abc import Loader as AnyLoader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional, Sequence

#: The modules that have an SQLite.
_MODULES = frozenset(("_sqlite3", "pysqlite3._sqlite3", "apsw"))


class Finder:
    """Stands first on :data:`sys.meta_path`, asks the other finders, and registers the VFS with a module once it is imported."""

    @classmethod
    def find_spec(
        cls, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """https://docs.python.org/3/library/importlib.html#importlib.abc.MetaPathFinder.find_spec"""
        if name not in _MODULES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is cls or find is None:
                continue
            spec: "Optional[ModuleSpec]" = find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class Loader:
    """Calls another loader, and then registers the VFS with the module."""

    def __init__(self, loader: "AnyLoader") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "Optional[ModuleType]":
        """https://docs.python.org/3/library/importlib.html#importlib.abc.Loader.create_module"""
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        """https://docs.python.org/3/library/importlib.html#importlib.abc.Loader.exec_module"""
        # From now on the module looks as if it had been imported without this loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        serve(module)


def serve(module: "ModuleType") -> None:
    """Registers the VFS with a module's SQLite as its default one. Failures are reported on standard error: the
    application goes on as it would without this VFS."""
    from ._register import RegistrationError, name_of, register

    try:
        register(module, make_default=True)
    except RegistrationError as error:
        tell(f"{name_of(module)} goes on with SQLite's own VFS: {error}")
    except Exception as error:
        tell(f"{name_of(module)} goes on with SQLite's own VFS: {type(error).__name__}: {error}")


def tell(text: str) -> None:
    """Prints a line to standard error, if there is one. What a terminal obeys is replaced."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    try:
        print(f"kanban-vfs: process {os.getpid()}: {text}", file=sys.stderr, flush=True)
    except Exception:
        pass


def install() -> None:
    """Registers the VFS with the modules that are imported already, and with those that are imported later."""
    # As secure_getenv(3): in a program with the setuid bit the caller chooses the environment.
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid() or Finder in sys.meta_path:
        return
    sys.meta_path.insert(0, Finder)
    for name in _MODULES & sys.modules.keys():
        serve(sys.modules[name])


if os.environ.get("KANBAN_VFS_DEFAULT") == "1":
    install()
