"""``python -m kanban_vfs run``: an application that nobody changes, with workers of every kind."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from conftest import PATIENCE, ROOT, python
from kanban_vfs.__main__ import FLAGS, VALUES, variable_of

#: An application that knows nothing of the VFS: in each worker a stranger breaks into its transaction, or is refused.
APPLICATION = (ROOT / "vfs-tests/src/application.py").read_text()

#: All that it starts.
WORKERS = ["the first", "fork", "fork pool", "spawn", "spawn pool", "forkserver", "forkserver pool"]
WORKERS += ["subprocess", "shell"]


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """``python -m kanban_vfs run``, to its end; but for what it says of a package that not everybody may read."""
    done = subprocess.run(
        [sys.executable, "-m", "kanban_vfs", "run", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if "not every user may read it" not in line)
    return done


def test_every_worker_is_on_the_vfs(tmp_path: Path) -> None:
    """A worker looks at a file of its board in a transaction. On the stock VFS a stranger then writes into that
    transaction. Started by ``run``, the application keeps its lock in each of its processes, however it starts them."""
    application = tmp_path / "application.py"
    application.write_text(APPLICATION)
    (tmp_path / "stock").mkdir()
    (tmp_path / "ours").mkdir()
    stock = subprocess.run(
        [sys.executable, str(application), str(tmp_path / "stock")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    assert sorted(stock.stdout.splitlines()) == sorted(f"{worker} broke in" for worker in WORKERS)
    ours = run(str(application), str(tmp_path / "ours"))
    assert sorted(ours.stdout.splitlines()) == sorted(f"{worker} database is locked" for worker in WORKERS)
    assert ours.stderr == "" and ours.returncode == 0


def test_each_variable_is_an_option() -> None:
    """``run`` takes what the extension reads, by the same names: a variable that it did not know it would call unknown."""
    text = (ROOT / "src/options.rs").read_text()
    known = re.search(r"const VARIABLES: .*?= \[(.*?)\];", text, re.DOTALL)
    assert known
    options = {variable_of(name) for name in (*FLAGS, *VALUES, "vfs-default")}
    assert options == set(re.findall(r'"(KANBAN_\w+)"', known[1]))


#: Says of each module whether a connection of it that names no VFS is on this one.
EACH_MODULE = """
import importlib, subprocess, sys
def on_the_vfs(name):
    module = importlib.import_module(name)
    board = getattr(module, "connect", module.Connection)(sys.argv[1])
    return bool(board.cursor().execute("PRAGMA kanban_status").fetchall())
for name in sys.argv[2:]:
    print(name, on_the_vfs(name))
"""


def test_every_sqlite_is_on_the_vfs(tmp_path: Path) -> None:
    """pysqlite3 and apsw have a copy of SQLite each, which no other way reaches."""
    modules = ["sqlite3", "_sqlite3", "pysqlite3", "pysqlite3.dbapi2", "apsw"]
    program = tmp_path / "program.py"
    program.write_text(EACH_MODULE)
    arguments = [str(program), str(tmp_path / "board.db"), *modules]
    done = run(*arguments)
    assert done.stdout.splitlines() == [f"{module} True" for module in modules], done.stderr
    # In the other order, and with nothing but the variable.
    by_variable = python(EACH_MODULE, *arguments[1:2], *reversed(modules), KANBAN_VFS_DEFAULT="1")
    assert by_variable.splitlines() == [f"{module} True" for module in reversed(modules)]
    for value in ["", "0", "yes"]:
        stock = python(EACH_MODULE, *arguments[1:], KANBAN_VFS_DEFAULT=value)
        assert stock.splitlines() == [f"{module} False" for module in modules], value


def test_it_is_a_module_like_any_other(module: Any) -> None:
    """An application that looks at how its module was imported, reloads it, or imports the package as well."""
    program = """
import importlib, sys
import {0}
module = sys.modules["{1}"]
assert module.__spec__.loader is module.__loader__
print(type(module.__loader__).__name__, module.__spec__.origin, module.__file__)
import kanban_vfs
kanban_vfs.register({0})
kanban_vfs.register({0}, make_default=True)
"""
    native = {"sqlite3": "_sqlite3", "pysqlite3": "pysqlite3._sqlite3", "apsw": "apsw"}[module.__name__]
    program = program.format(module.__name__, native)
    assert python(program, KANBAN_VFS_DEFAULT="1") == python(program, KANBAN_VFS_DEFAULT="0")


def test_it_costs_nothing_where_it_is_not_used() -> None:
    """Every interpreter reads the file that the package adds to its start: without the variable it imports nothing, and
    with it two small modules, and no other."""
    program = "import sys; print(*sorted(sys.modules))"
    without = set(python(program, KANBAN_VFS_DEFAULT="").split())
    assert not {name for name in without if "kanban" in name}
    with_it = set(python(program, KANBAN_VFS_DEFAULT="1").split())
    assert with_it - without == {"kanban_vfs", "kanban_vfs._default"}


def test_a_failure_is_reported_and_the_application_goes_on(tmp_path: Path) -> None:
    """A malformed variable keeps the VFS out. On the stock VFS the application worked: it still does, and somebody who
    reads its standard error learns why it has no guarantees."""
    program = tmp_path / "program.py"
    program.write_text(EACH_MODULE)
    done = run(str(program), str(tmp_path / "board.db"), "sqlite3", "apsw", KANBAN_BUSY_TIMEOUT="soon")
    assert done.stdout == "sqlite3 False\napsw False\n" and done.returncode == 0
    lines = re.findall(r"^kanban-vfs: process \d+: (\w+) goes on with SQLite's own VFS: .*KANBAN_BUSY", done.stderr, re.M)
    assert lines == ["sqlite3", "apsw"], done.stderr


def test_a_user_of_another_process_chooses_nothing() -> None:
    """In a program with the setuid bit the environment is its caller's."""
    program = """
import os, sys
os.geteuid = lambda: os.getuid() + 1
import kanban_vfs._default as default
default.install()
print(default.Finder in sys.meta_path)
del os.geteuid
os.geteuid = os.getuid
default.install()
print(default.Finder in sys.meta_path)
"""
    assert python(program, KANBAN_VFS_DEFAULT="") == "False\nTrue\n"


#: Prints how it was called, and what the VFS's default busy timeout is.
TELLS = """
import json, sqlite3, sys
row = sqlite3.connect(sys.argv[1]).execute("PRAGMA kanban_status").fetchone()
status = json.loads(row[0])
print(json.dumps([__name__, sys.argv[1:], status["busy_timeout_default_ms"], status["persist_wal"]]))
sys.exit(7)
"""


@pytest.mark.parametrize("kind", ["script", "module", "program", "directory"])
def test_what_it_starts(kind: str, tmp_path: Path) -> None:
    """A script, a module, a directory with a program in it, or any program; its arguments and its exit status are its
    own, and options that stand behind it as well."""
    script = tmp_path / "tells.py"
    script.write_text(TELLS)
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "__main__.py").write_text(TELLS)
    program = tmp_path / "tells"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {script} \"$@\"\n")
    program.chmod(0o755)
    command: Dict[str, List[str]] = {
        "script": [str(script)],
        "module": ["-m", "tells"],
        "program": [str(program)],
        "directory": [str(tmp_path / "directory")],
    }
    rest = [str(tmp_path / "board.db"), "--busy-timeout=1", "-m", "--"]
    done = run("--busy-timeout=1234", "--persist-wal", *command[kind], *rest, PYTHONPATH=str(tmp_path))
    assert json.loads(done.stdout) == ["__main__", rest, 1234, True], done.stderr
    assert done.returncode == 7
    done = run("--busy-timeout", "77", "--persist-wal=0", "--", *command[kind], *rest, PYTHONPATH=str(tmp_path))
    assert json.loads(done.stdout) == ["__main__", rest, 77, False], done.stderr


def test_the_variables_that_it_sets(tmp_path: Path) -> None:
    """They are those of ``kanban-vfs run``; what is set already stays, a file for lines is where the user has named it, and
    another library that is preloaded stays before this one."""
    script = tmp_path / "shows.py"
    names = "VFS_DEFAULT", "REQUIRE", "BEGIN", "LOG"
    script.write_text(f"import os\nprint(*(os.environ.get('KANBAN_' + name) for name in {names}), os.environ['LD_PRELOAD'])")
    shown = run("--log=lines", str(script), LD_PRELOAD="").stdout.split()
    assert shown[:4] == ["1", "1", "auto", os.path.abspath("lines")]
    other = shown[4].replace("_preload", "")
    shown = run("--log=stderr", str(script), KANBAN_REQUIRE="0", KANBAN_BEGIN="deferred", LD_PRELOAD=other).stdout.split()
    assert shown[:4] == ["1", "0", "deferred", "stderr"]
    assert shown[4].split(":")[0] == other and len(shown[4].split(":")) == 2


def test_a_program_by_the_name_of_a_directory(tmp_path: Path) -> None:
    """Beside the application is a directory that is named like the program, with data, or even a program of Python's, in it."""
    for name in ["sh", "data"]:
        (tmp_path / name).mkdir()
    (tmp_path / "sh" / "__main__.py").write_text("print('directory')")
    call = "import os, sys; os.chdir(sys.argv[1]); import kanban_vfs.__main__ as it; it.main(['run', *sys.argv[2:]])"
    for arguments, said in [(["sh", "-c", "echo program"], "program\n"), (["./sh"], "directory\n")]:
        assert python(call, str(tmp_path), *arguments) == said
    done = run(str(tmp_path / "data"))
    assert done.returncode == 2 and "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "run what?"),
        (["--busy-timeout=soon", "x.py"], "--busy-timeout: 'soon' is not a number of milliseconds"),
        (["--busy-timeout"], "--busy-timeout needs a value"),
        (["--group-commit=on", "x.py"], "--group-commit: 'on' is neither 0 nor 1"),
        (["--no-such", "x.py"], "unknown option --no-such; known: --base-vfs, --begin, "),
        (["-m"], "-m needs the name of a module"),
        (["-c", "pass"], "-c stands before the program"),
        (["no-such-program"], "no-such-program: No such file or directory"),
    ],
)
def test_what_it_refuses(arguments: List[str], why: str) -> None:
    """Nothing is started, and the message says what is wrong."""
    done = run(*arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith(f"kanban-vfs: {why}")


def test_the_application_gets_its_signals(tmp_path: Path) -> None:
    """A supervisor knows the process that it has started, and stops it: no other process stands between."""
    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    script = tmp_path / "waits.py"
    script.write_text(program)
    started = subprocess.Popen(
        [sys.executable, "-m", "kanban_vfs", "run", str(script)], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    try:
        assert int(started.stdout.readline()) == started.pid
        started.terminate()
        assert started.wait(PATIENCE) == -signal.SIGTERM
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def test_a_package_that_no_interpreter_starts_with(tmp_path: Path) -> None:
    """The package lies in a directory of PYTHONPATH, where nothing is read when an interpreter starts: no process
    would be on the VFS, and nobody would know."""
    import kanban_vfs

    package = Path(kanban_vfs.__file__).parent
    os.symlink(package, tmp_path / "kanban_vfs")
    script = "import kanban_vfs.__main__ as it; it.__file__ = {!r}; it.protected({{}})"
    for place, is_told in [(tmp_path / "kanban_vfs", True), (package, False)]:
        done = subprocess.run(
            [sys.executable, "-c", script.format(str(place / "__main__.py"))],
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
        assert ("no Python reads kanban_vfs.pth when it starts, so pysqlite3 and apsw" in done.stderr) == is_told, done.stderr


def tool_on_the_path(directory: Path) -> Tuple[Path, Dict[str, str]]:
    """A program by the tool's name that says how it was called, and the environment in which it is found."""
    tool = directory / "kanban-vfs"
    tool.write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    tool.chmod(0o755)
    return tool, {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


def test_the_tool_of_the_package(tmp_path: Path) -> None:
    """Somebody without Rust looks at a board."""
    import kanban_vfs

    board = kanban_vfs.connect(tmp_path / "board.db", isolation_level=None)
    board.execute("CREATE TABLE tasks (n INTEGER)")
    board.execute("BEGIN IMMEDIATE")
    for command in [["status", "--json"], ["check", "--json"], ["watch", "--count=1"]]:
        done = subprocess.run(
            [sys.executable, "-m", "kanban_vfs", command[0], str(tmp_path / "board.db"), command[1]],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, command
        if command[0] == "status":
            assert json.loads(done.stdout)["holder"]["pid"] == os.getpid()


def test_a_child_that_is_no_python(tmp_path: Path) -> None:
    """``run`` starts a shell, which starts SQLite's own: it links libsqlite3."""
    look = f"sqlite3 {tmp_path}/board.db 'PRAGMA kanban_status'"
    done = run("sh", "-c", look)
    assert '"vfs":"kanban/unix"' in done.stdout and done.stderr == ""
    assert subprocess.check_output(["sh", "-c", look], timeout=PATIENCE) == b""


def test_a_database_that_goes_past_it_is_told_of(tmp_path: Path) -> None:
    """A connection names another VFS: whoever has started the application learns of it, unless he does not want to."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sqlite3, sys\n"
        "for n in range(3):\n"
        "    sqlite3.connect(f'file:{sys.argv[1]}?vfs=unix', uri=True).execute('PRAGMA user_version')\n"
    )
    board = str(tmp_path / "board.db")
    told = run(str(program), board).stderr
    assert f"{board} is locked by SQLite's own VFS, past kanban" in told and told.count("\n") == 1
    assert run("--require=0", str(program), board).stderr == ""


def test_the_tool_on_the_path(tmp_path: Path) -> None:
    """Without a tool in the package, the one on the PATH is asked, and its exit status is the answer."""
    _, environment = tool_on_the_path(tmp_path)
    program = "import kanban_vfs.__main__ as it; it.__file__ = '/nowhere/x'; it.main({!r})"
    call = [sys.executable, "-c", program.format(["check", "board.db", "--json"])]
    done = subprocess.run(call, env=environment, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.stdout == "check board.db --json\n" and done.returncode == 1
    environment["PATH"] = "/nowhere"
    lost = subprocess.run(call, env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert lost.returncode == 2 and "cargo install --path cli" in lost.stderr


def test_a_variable_that_means_nothing_is_told_of(tmp_path: Path) -> None:
    """It is misspelt: the application is started, and whoever has set it learns that it means nothing."""
    script = tmp_path / "script.py"
    script.write_text("import os; print(os.environ['KANBAN_LOG'])")
    done = run("--log=stderr", str(script), KANBAN_BUSY_TIMEOT="5", KANBAN_HARD_LINKS="1")
    assert done.stdout == "stderr\n" and done.returncode == 0
    assert done.stderr.startswith("kanban-vfs: unknown variables: KANBAN_BUSY_TIMEOT; known: KANBAN_BASE_VFS, ")
