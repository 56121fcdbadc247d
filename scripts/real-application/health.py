"""Unusual scenes of a board, in which the application's own checks at each open run: what the application says on the
stock VFS, and on this one.

    health.py                    all scenes, compared
    health.py SCENE BOARD_DIRECTORY   one step of one of them, in a process of its own
"""

import json
import logging
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile

#: Longer than any step takes.
TIMEOUT_S = 60


def one_step(directory, with_a_move=False):
    """Opens the board as a new process of the application does, writes, and says what came of it, and on which VFS."""
    os.environ["HERMES_HOME"] = directory
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage().split(" (")[0])
    logging.getLogger().addHandler(handler)
    from hermes_cli import kanban_db

    made, error, vfs = 0, None, None
    try:
        with kanban_db.connect_closing() as board:
            vfs = "stock" if board.execute("PRAGMA kanban_status").fetchone() is None else "kanban"
            kanban_db.create_task(board, title="first", assignee=None)
            made += 1
            if with_a_move:
                path = kanban_db.kanban_db_path()
                path.rename(path.with_name("moved.db"))
                kanban_db.create_task(board, title="into a board that nobody sees", assignee=None)
                made += 1
    except Exception as problem:  # Whatever the application's user would see.
        error = type(problem).__name__ + ": " + str(problem)
    print(json.dumps({"vfs": vfs, "made": made, "error": error, "warnings": said}))


#: Root without its right to do what the permissions forbid.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def step(scene, vfs, directory, by=()):
    run = ["-m", "kanban_vfs", "run"] if vfs == "kanban" else []
    command = [*by, sys.executable, *run, __file__, scene, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    lines = result.stdout.splitlines()
    said = json.loads(lines[-1]) if lines else {"vfs": None, "error": result.stderr[-300:], "made": 0, "warnings": []}
    if said.pop("vfs") not in (vfs, None):
        sys.exit(f"{scene}: it is not on the {vfs} VFS")
    return said


def tasks(path):
    board = sqlite3.connect(f"file:{path}?vfs=unix&mode=ro", uri=True)
    whole = board.execute("PRAGMA integrity_check").fetchone()[0]
    mode = board.execute("PRAGMA journal_mode").fetchone()[0]
    count = board.execute("SELECT count(*) FROM tasks").fetchone()[0]
    board.close()
    return {"whole": whole, "mode": mode, "tasks": count}


def new_and_opened_again(vfs, directory):
    """A board is made, closed, and opened by the next process."""
    steps = [step("open", vfs, directory) for _ in range(2)]
    return steps, tasks(directory / "kanban.db")


def read_only(vfs, directory):
    """A board that its user may only read."""
    step("open", vfs, directory)
    (directory / "kanban.db").chmod(0o444)
    steps = [step("open", vfs, directory, by=UNPRIVILEGED)]
    return steps, tasks(directory / "kanban.db")


def moved_away(vfs, directory):
    """Another program moves the board away while the application has it open, and later back."""
    step("open", vfs, directory)
    steps = [step("move", vfs, directory)]
    (directory / "moved.db").rename(directory / "kanban.db")
    return steps, tasks(directory / "kanban.db")


def wal_is_refused(directory):
    """The board lies on a file system on which WAL mode is refused: the application falls back to DELETE."""
    served, mount = directory / "served", directory / "mount"
    served.mkdir()
    mount.mkdir()
    subprocess.run(["bindfs", served, mount], check=True, timeout=TIMEOUT_S)
    try:
        steps = [step("open", "kanban", mount) for _ in range(2)]
        return steps, tasks(mount / "kanban.db")
    finally:
        subprocess.run(["umount", mount], check=True, timeout=TIMEOUT_S)


def main():
    failed = []

    def expect(scene, what, is_so):
        if not is_so:
            failed.append(scene)
            print(f"{scene}: {what}", flush=True)

    for scene in (new_and_opened_again, read_only, moved_away):
        outcomes = {}
        for vfs in ("stock", "kanban"):
            directory = pathlib.Path(tempfile.mkdtemp())
            directory.chmod(0o755)
            outcomes[vfs] = scene(vfs, directory)
            shutil.rmtree(directory, ignore_errors=True)
        stock, ours = outcomes["stock"], outcomes["kanban"]
        print(f"{scene.__name__}: stock {stock}; kanban {ours}", flush=True)
        if scene is moved_away:
            # On the stock VFS the second task is written where nobody looks for it.
            error = ours[0][0]["error"] or ""
            expect(scene.__name__, "no clear error", "readonly" in error and ours[0][0]["made"] == 1)
            expect(scene.__name__, "something is lost", ours[1] == {"whole": "ok", "mode": "wal", "tasks": 2})
        else:
            expect(scene.__name__, "it is not as on the stock VFS", stock == ours)
    if os.geteuid() == 0 and shutil.which("bindfs") and os.path.exists("/dev/fuse"):
        directory = pathlib.Path(tempfile.mkdtemp())
        steps, found = wal_is_refused(directory)
        shutil.rmtree(directory, ignore_errors=True)
        print(f"wal_is_refused: kanban {steps} {found}", flush=True)
        expect("wal_is_refused", "an error", all(said["error"] is None for said in steps))
        expect("wal_is_refused", "no fallback", found == {"whole": "ok", "mode": "delete", "tasks": 2})
    elif os.environ.get("KANBAN_TESTS") == "all":
        expect("wal_is_refused", "it needs root, bindfs and /dev/fuse", False)
    else:
        print("wal_is_refused: skipped: it needs root, bindfs and /dev/fuse")
    sys.exit(1 if failed else 0)


if len(sys.argv) > 1:
    one_step(sys.argv[2], with_a_move=sys.argv[1] == "move")
else:
    main()
