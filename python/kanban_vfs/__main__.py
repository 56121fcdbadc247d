"""``python -m kanban_vfs``: starts an application on the VFS, and looks at boards.

    python -m kanban_vfs run [--OPTION[=VALUE] ...] SCRIPT.py [ARGUMENT ...]
    python -m kanban_vfs run [--OPTION[=VALUE] ...] -m MODULE [ARGUMENT ...]
    python -m kanban_vfs run [--OPTION[=VALUE] ...] PROGRAM [ARGUMENT ...]

Starts a script or a module with this Python, or any program. The VFS is the default one in that program and in all programs
that it starts in turn. (A directory with a ``__main__.py`` is a script, unless a program on the PATH has that name.)
Connection strings stay as they are. An OPTION is one of docs/configuration.md without its prefix,
``--busy-timeout=20000`` or ``--group-commit``; it applies to all databases of these processes. A process that
uses a database without the VFS says so once on standard error, unless ``--require=0``. Unless ``--begin=deferred``, a
transaction takes the write lock before it reads, once others with the same first statement have written after they
had read (``KANBAN_BEGIN=auto``).

    python -m kanban_vfs status|watch|check BOARD [...]

is the tool ``kanban-vfs``, which is installed by that name, too.
"""

import os
import re
import shutil
import subprocess
import sys
from typing import Dict, List, NoReturn, Optional, Sequence, Tuple

#: The options that are 0 or 1, and those that have another value, with the environment variable of each.
FLAGS = ("file-ahead", "group-commit", "hard-links", "network-wal", "persist-wal", "record", "record-sql", "require")
VALUES = ("base-vfs", "begin", "begin-timeout", "busy-timeout", "busy-timeout-min", "log", "slow-ms")
BEGINS = ("auto", "deferred", "immediate")

#: The exit status where nothing was started: a wrong argument, no such program.
CANNOT = 2


def main(arguments: Sequence[str]) -> NoReturn:
    """Does what the command line says. Replaces this process by the application or the tool, so that signals, the
    exit status and the process id are theirs."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        sys.exit(0 if arguments else CANNOT)
    if arguments[0] == "run":
        variables, command = parse(arguments[1:])
        known = {variable_of(name) for name in (*FLAGS, *VALUES, "vfs-default")}
        unknown = sorted(name for name in os.environ if name.startswith("KANBAN_") and name not in known)
        if unknown:
            tell(f"unknown variables: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        environment = protected({**os.environ, **variables})
        become(command, environment)
    become([tool(arguments[0]), *arguments], dict(os.environ))


def console() -> NoReturn:
    """The console script ``kanban-vfs``: replaces this process by the tool of this package."""
    found = packed_tool()
    if found is None:
        refuse("this package was built without the tool, which takes Rust 1.89: cargo install --path cli")
    become([found, *sys.argv[1:]], dict(os.environ))


def parse(arguments: Sequence[str]) -> Tuple[Dict[str, str], List[str]]:
    """The environment variables that ``run``'s options set, and the command that it starts."""
    variables: Dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        if option == "--":
            break
        name, has_value, value = option[2:].partition("=")
        if name in FLAGS:
            value = value if has_value else "1"
            if value not in ("0", "1"):
                refuse(f"--{name}: {value!r} is neither 0 nor 1")
        elif name in VALUES:
            if not has_value:
                if not rest:
                    refuse(f"--{name} needs a value: --{name}=VALUE")
                value = rest.pop(0)
            is_ms = value.isascii() and value.isdecimal() and len(value) <= 10 and int(value) < 2**31
            if ("timeout" in name or name == "slow-ms") and not is_ms:
                refuse(f"--{name}: {value!r} is not a number of milliseconds from 0 to 2147483647")
            if name == "begin" and value not in BEGINS:
                refuse(f"--{name}: {value!r} is none of {', '.join(BEGINS)}")
        else:
            known = ", ".join("--" + name for name in sorted(FLAGS + VALUES))
            refuse(f"unknown option --{name}; known: {known}")
        if name == "log" and value not in ("", "stderr"):
            # The application, or a child of it, may have gone to another directory by then.
            value = os.path.abspath(value)
        variables[variable_of(name)] = value
    if not rest:
        refuse("run what? A script, -m and a module, or a program")
    if rest[0] == "-m" and len(rest) < 2:
        refuse("-m needs the name of a module")
    if rest[0].startswith("-") and rest[0] != "-m":
        refuse(f"{rest[0]} stands before the program; options of run begin with two dashes")
    is_pythons = rest[0] == "-m" or rest[0].endswith(".py") or is_program_directory(rest[0])
    # A new interpreter: in this one, multiprocessing would take this module for the application's
    # main one.
    return variables, [sys.executable, *interpreter_flags(), *rest] if is_pythons else rest


def is_program_directory(name: str) -> bool:
    """Whether a name is that of a directory that Python runs, and not of a program on the PATH."""
    is_program = os.sep not in name and shutil.which(name) is not None
    return os.path.isfile(os.path.join(name, "__main__.py")) and not is_program


def variable_of(option: str) -> str:
    """The environment variable of an option."""
    return "KANBAN_" + option.upper().replace("-", "_")


def interpreter_flags() -> List[str]:
    """The flags with which this Python was started, as multiprocessing passes them on."""
    flags: "Optional[List[str]]" = getattr(subprocess, "_args_from_interpreter_flags", list)()
    return flags or []


def protected(environment: Dict[str, str]) -> Dict[str, str]:
    """The environment in which every SQLite has the VFS as its default one: those of Python's modules, those that are
    linked dynamically, and those of Node. ``kanban-vfs run`` sets the same variables."""
    package = os.path.dirname(os.path.abspath(__file__))
    environment["KANBAN_VFS_DEFAULT"] = "1"
    environment.setdefault("KANBAN_REQUIRE", "1")
    environment.setdefault("KANBAN_BEGIN", "auto")
    if not is_read_at_start(os.path.join(os.path.dirname(package), "kanban_vfs.pth")):
        tell(
            "no Python reads kanban_vfs.pth when it starts, so pysqlite3 and apsw will not use the VFS: install the"
            " package into the site-packages of this Python (pip install ./python), not by --target, PYTHONPATH or"
            " --editable"
        )
    library = os.path.join(package, "libkanban_vfs_preload.so")
    if not os.path.exists(library) or re.search("[ :$]", library):
        is_there = os.path.exists(library)
        why = "its path has a space, a colon or a dollar sign" if is_there else "it was not built"
        tell(f"{library} is not preloaded: {why}; only the SQLites of Python and Node will use the VFS")
    else:
        others = re.split("[ :]", environment.get("LD_PRELOAD", ""))
        # Last: some libraries, such as AddressSanitizer's, must come first.
        environment["LD_PRELOAD"] = ":".join([*(o for o in others if o not in ("", library)), library])
        tell_if_private(library)
    node = os.path.join(package, "kanban_vfs_node.js")
    options = environment.get("NODE_OPTIONS", "")
    if os.path.exists(node) and node not in options:
        quoted = node.replace("\\", "\\\\").replace('"', '\\"')
        environment["NODE_OPTIONS"] = f'--require "{quoted}" {options}'.strip()
    return environment


def tell_if_private(path: str) -> None:
    """Warns if other users cannot read a file that every child reads: an application that root starts may change its
    user, and then Node would not start."""
    if os.geteuid() != 0:
        return
    is_open = os.stat(path).st_mode & 0o004 != 0
    place = os.path.dirname(path)
    while is_open and place != os.path.dirname(place):
        is_open = os.stat(place).st_mode & 0o001 != 0
        place = os.path.dirname(place)
    if not is_open:
        tell(
            f"{path}: not every user may read it: a child of another user goes on with SQLite's own VFS, and a Node does"
            " not start; install the package where all users may read it"
        )


def is_read_at_start(path: str) -> bool:
    """Whether the interpreters that this one starts read this file when they start."""
    import site

    places = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    mine = os.path.realpath(os.path.dirname(path))
    return os.path.exists(path) and mine in map(os.path.realpath, places)


def tool(command: str) -> str:
    """The tool ``kanban-vfs``: the one of this package, or else the one on the PATH."""
    found = packed_tool() or shutil.which("kanban-vfs")
    if found is None:
        refuse(
            f"{command}: the tool kanban-vfs is neither in this package nor on the PATH: cargo install --path cli;"
            " PRAGMA kanban_status and kanban_vfs.status(BOARD) say most of the same"
        )
    return found


def packed_tool() -> Optional[str]:
    """The tool of this package, if it was built."""
    packed = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kanban-vfs")
    return packed if os.access(packed, os.X_OK) else None


def become(command: Sequence[str], environment: Dict[str, str]) -> NoReturn:
    """Replaces this process by a program. execvpe(3)"""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        refuse(f"{command[0]}: {error.strerror}")


def refuse(why: str) -> NoReturn:
    """Ends this process, since it cannot do what it was asked for."""
    tell(why)
    sys.exit(CANNOT)


def tell(text: str) -> None:
    """Prints a line to standard error. What a terminal obeys is replaced."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    print(f"kanban-vfs: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
