"""The package is installed, as a user has it; the checkout is only where the tests lie."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, List, Sequence

import pytest

#: Longer than anything takes on a loaded machine.
PATIENCE = 120

#: The checkout.
ROOT = Path(__file__).resolve().parents[2]

#: Whether nothing may be skipped, as in CI.
IS_ALL = os.environ.get("KANBAN_TESTS") == "all"

# What is for the tests of the VFS means nothing to a client, which would say so.
for name in [name for name in os.environ if name.startswith("KANBAN_")]:
    del os.environ[name]


def needs(*modules: str) -> None:
    """Skips a test whose application is not installed, by the name of its module; with ``KANBAN_TESTS=all`` it fails."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            if IS_ALL:
                raise
            pytest.skip(f"needs {module}: {error}")


@pytest.fixture
def board(tmp_path: Path) -> str:
    """The name of a board that does not exist yet, with everything that means something in a URI."""
    return str(tmp_path / "a board? #1 100%25&vfs=unix.db")


@pytest.fixture(params=["sqlite3", "pysqlite3", "apsw"])
def module(request: Any) -> ModuleType:
    """Each module that has an SQLite."""
    return importlib.import_module(request.param)


def python(program: str, *arguments: str, **environment: str) -> str:
    """Runs a program in a process of its own: what is registered stays for the life of one."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def run_at_once(programs: Sequence[List[str]]) -> None:
    """Runs processes at the same time and sees to it that each ends well."""
    running = [subprocess.Popen([sys.executable, *program]) for program in programs]
    try:
        assert [process.wait(PATIENCE) for process in running] == [0] * len(running)
    finally:
        for process in running:
            process.kill()
            process.wait()
