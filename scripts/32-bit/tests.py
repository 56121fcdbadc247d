"""What 32-bit clients say of themselves, and how they share a board with 64-bit ones.

    tests.py EXTENSION 'PYTHON ...' EXTENSION ['PYTHON ...' EXTENSION ...]

The first extension is this machine's; then each command is a 32-bit Python, with an extension for it.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "client.py")
WHY = "it is not supported on this operating system and processor"
# What depends on the system calls that are replaced on other processors only.
OFF = {"lock_cancellation", "fork", "wal_in_use"}
WRITERS = 3
TASKS = 20


def main(own, *others):
    kinds = [([sys.executable], own)]
    kinds += [(others[at].split(), others[at + 1]) for at in range(0, len(others), 2)]
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "board.db")
        log = os.path.join(directory, "log")
        with sqlite3.connect(path) as board:
            board.execute("PRAGMA journal_mode=wal")
            board.execute("CREATE TABLE tasks (title TEXT)")

        def start(kind, *arguments):
            python, extension = kind
            return subprocess.Popen(
                [*python, CLIENT, extension, path, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=dict(os.environ, KANBAN_LOG=log),
                text=True,
            )

        def lines_about_the_guard():
            lines = open(log).read().splitlines() if os.path.exists(log) else []
            return [line for line in lines if f"the guard against that is off: {WHY}" in line]

        for holder in kinds:
            told = len(lines_about_the_guard())
            held = start(holder, "hold")
            said = json.loads(held.stdout.readline())
            off = {name: state["why"] for name, state in said["guarantees"].items() if not state["active"]}
            if holder is kinds[0]:
                assert said["bits"] == 64 and not off, said
            else:
                assert said["bits"] == 32 and set(off) == OFF, said
                assert off["lock_cancellation"] == WHY and all(WHY in why for why in off.values()), off
            assert len(lines_about_the_guard()) == told + (holder is not kinds[0])
            for other in kinds:
                output, _ = start(other, "try").communicate(timeout=60)
                seen = json.loads(output)
                assert seen["refused"] and seen["holder"]["pid"] == held.pid, seen
            held.communicate("\n", timeout=60)
            assert held.returncode == 0
            print(f"{said['bits']} bits, by {os.path.basename(holder[0][0])}: {off}")

        writers = [start(kind, "write", str(TASKS)) for kind in kinds for _ in range(WRITERS)]
        for writer in writers:
            writer.communicate(timeout=300)
            assert writer.returncode == 0
        with sqlite3.connect(path) as board:
            (count,) = board.execute("SELECT count(*) FROM tasks").fetchone()
            assert count == len(kinds) + len(writers) * TASKS, count
            assert board.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        print(f"{len(writers)} writers of {len(kinds)} kinds at once: {count} tasks")


main(*sys.argv[1:])
