"""What the wheel holds, its types, and the README's snippets."""

import re
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

import kanban_vfs

from conftest import PATIENCE, ROOT, python

VERSION = kanban_vfs.__version__


def test_the_wheel_holds_what_it_should_and_nothing_more() -> None:
    """As it was installed; pip adds what it keeps its own books in."""
    module = {"__init__.py", "__main__.py", "_connect.py", "_default.py", "_register.py", "_status.py", "_uri.py"}
    module |= {"py.typed", "libkanban_vfs.so"}
    # For applications that are not Python's, and the tool.
    module |= {"libkanban_vfs_preload.so", "kanban_vfs_node.js", "kanban-vfs"}
    metadata = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt"}
    metadata |= {"licenses/LICENSE-APACHE", "licenses/LICENSE-MIT"}
    of_pip = {"INSTALLER", "REQUESTED", "direct_url.json"}
    installed = {str(file) for file in files("kanban-vfs") or [] if file.suffix != ".pyc"}
    info = f"kanban_vfs-{VERSION}.dist-info/"
    installed -= {info + name for name in of_pip}
    expected = {"kanban_vfs/" + name for name in module} | {info + name for name in metadata}
    assert installed == expected | {"kanban_vfs.pth", "../../../bin/kanban-vfs"}
    wheel = next(file for file in files("kanban-vfs") or [] if file.name == "WHEEL")
    assert re.search(r"^Tag: py3-none-\w*linux_\w+$", wheel.read_text(), re.MULTILINE)
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"]:
        packed = next(file for file in files("kanban-vfs") or [] if file.name == licence)
        assert packed.read_text() == (ROOT / licence).read_text()


def test_importing_it_is_cheap() -> None:
    """importlib.metadata imports an email parser and half of the standard library with it."""
    program = "import sys, kanban_vfs\nprint('importlib.metadata' in sys.modules, kanban_vfs.__version__)"
    assert python(program).split() == ["False", VERSION]


def test_types(tmp_path: Path) -> None:
    """A program that uses the package, and the package, pass mypy --strict."""
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import sqlite3\n"
        "from pathlib import Path\n"
        "import kanban_vfs\n"
        "board: sqlite3.Connection = kanban_vfs.connect(Path('board.db'), timeout=1)\n"
        "kanban_vfs.load(board)\n"
        "kanban_vfs.register(sqlite3, make_default=False)\n"
        "holder = kanban_vfs.status('board.db')['holder']\n"
        "pid: int = holder['pid'] if holder else 0\n"
    )
    for subject in [[str(program)], ["--package", "kanban_vfs"]]:
        checked = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), *subject],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            cwd=tmp_path,
        )
        assert checked.returncode == 0, checked.stdout


def snippets() -> "list[tuple[str, str]]":
    """The Python in the documents."""
    found = []
    for document in [ROOT / "python/README.md", ROOT / "docs/clients.md"]:
        blocks = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
        found += [(f"{document.name} {n}", block) for n, block in enumerate(blocks, 1)]
    return found


@pytest.mark.parametrize(("name", "snippet"), snippets())
def test_each_snippet_runs(name: str, snippet: str, tmp_path: Path) -> None:
    """A reader types what is printed."""
    python(f"import os; os.chdir({str(tmp_path)!r})\n{snippet}")
    assert (tmp_path / "board.db").exists() or "DATABASES" in snippet


@pytest.mark.parametrize("is_early", [True, False])
def test_memory_shared_by_name_is_of_one_vfs(is_early: bool) -> None:
    """A program keeps a table in memory, which its connections share by a name. Registering the VFS as the default one
    between two of them splits it, as the README says; before all of them it does not."""
    register = "import kanban_vfs; kanban_vfs.register(make_default=True)\n"
    said = python(
        "import sqlite3\n"
        + (register if is_early else "")
        + "first = sqlite3.connect('file:shared?mode=memory&cache=shared', uri=True)\n"
        "first.execute('CREATE TABLE t (x)')\n"
        + ("" if is_early else register)
        + "second = sqlite3.connect('file:shared?mode=memory&cache=shared', uri=True)\n"
        "print(second.execute('SELECT count(*) FROM sqlite_master').fetchone()[0])\n"
    )
    assert said.strip() == ("1" if is_early else "0")


def test_a_reader_of_the_sqlalchemy_recipe_does_not_wait(tmp_path: Path) -> None:
    """A page reads through the engine of the README while another process writes for long. With the BEGIN IMMEDIATE of
    many recipes it would wait for the busy timeout, and fail."""
    recipe = next(block for _, block in snippets() if "create_engine" in block)
    said = python(
        f"import os; os.chdir({str(tmp_path)!r})\n{recipe}\n"
        "import sqlite3\n"
        "writer = sqlite3.connect('file:board.db?vfs=kanban', uri=True, isolation_level=None)\n"
        "writer.execute('PRAGMA journal_mode=wal')\n"
        "writer.execute('BEGIN IMMEDIATE')\n"
        "writer.execute(\"INSERT INTO tasks VALUES ('late')\")\n"
        "with engine.begin() as connection:\n"
        "    print(connection.exec_driver_sql('SELECT count(*) FROM tasks').scalar())\n"
        "writer.execute('ROLLBACK')\n"
    )
    assert said.strip() == "0"
