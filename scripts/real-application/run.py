"""Runs a burst of the application's workers on a new board, again and again, and counts what went wrong. On this VFS each
worker is started by ``python -m kanban_vfs run``, like any application that cannot be changed.

Usage: scripts/real-application.sh [--runs N] [--processes N] [--tasks N] [--stock] [--both]
"""

import argparse
import json
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
#: Longer than any burst takes; a worker that hangs fails the run.
TIMEOUT_S = 300


def kind_of(error):
    """What an error means to the user of the application."""
    kinds = [("torn-extend", "torn alarm"), ("malformed", "corrupt"), ("Corrupt", "corrupt"), ("locked", "locked")]
    for text, kind in kinds:
        if text in error:
            return kind
    return "other"


def burst(vfs, processes, tasks):
    """One run: what was made, what failed, whether the board is whole, and the seconds it took."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HERMES_HOME": home}
        run = ["-m", "kanban_vfs", "run"] if vfs == "kanban" else []
        command = [sys.executable, *run, HERE / "worker.py", str(tasks)]
        began = time.monotonic()
        workers = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(processes)
        ]
        made, protected, errors, longest = 0, 0, [], 0
        for worker in workers:
            try:
                out, _ = worker.communicate(timeout=TIMEOUT_S)
                said = json.loads(out.splitlines()[-1])
                made += said["made"]
                protected += said["protected"]
                errors += said["errors"]
                longest = max(longest, said["longest_ms"])
            except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
                worker.kill()
                errors.append(f"a worker ended without a word: {error!r}")
        seconds = time.monotonic() - began
        if protected != (made if vfs == "kanban" else 0):
            sys.exit(f"{vfs}: {protected} of {made} tasks were made on this VFS")
        board = next(pathlib.Path(home).rglob("kanban.db"))
        state, rows = look(board)
    counts = {kind: 0 for kind in ("corrupt", "torn alarm", "locked", "other")}
    for error in errors:
        counts[kind_of(error)] += 1
    return {
        "made": made, "rows": rows, "integrity": state, "seconds": seconds, "longest_ms": longest,
        "errors": counts, "first_other": next((e for e in errors if kind_of(e) == "other"), None),
    }


def look(board):
    """What SQLite says of the board when all is over, and how many tasks it holds."""
    try:
        connection = sqlite3.connect(f"file:{board}?vfs=unix", uri=True)
        state = connection.execute("PRAGMA integrity_check").fetchone()[0]
        rows = connection.execute("SELECT count(*) FROM tasks WHERE title LIKE 'task %'").fetchone()[0]
        connection.close()
        return state.splitlines()[0][:60], rows
    except sqlite3.Error as error:
        return str(error)[:60], 0


def main():
    parser = argparse.ArgumentParser(prog="scripts/real-application.sh", description="hermes-agent, unchanged, on the VFS")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=20, help="of each process")
    parser.add_argument("--stock", action="store_true", help="run on the stock VFS instead; never fails")
    parser.add_argument("--both", action="store_true", help="run on both in turn, the stock VFS first")
    options = parser.parse_args()
    sides = ["stock", "kanban"] if options.both else ["stock" if options.stock else "kanban"]
    totals = {side: [] for side in sides}
    expected = options.processes * options.tasks
    for nth in range(1, options.runs + 1):
        for side in sides:
            run = burst(side, options.processes, options.tasks)
            totals[side].append(run)
            said = ", ".join(f"{count} {kind}" for kind, count in run["errors"].items() if count)
            print(
                f"{side} run {nth}: {run['made']} of {expected} tasks, {run['rows']} rows, {run['integrity']}, "
                f"{run['seconds']:.1f} s, longest task {run['longest_ms']} ms{'; errors: ' + said if said else ''}"
                f"{' (' + run['first_other'][:100] + ')' if run['first_other'] else ''}",
                flush=True,
            )
    failed = False
    for side, runs in totals.items():
        whole = [run for run in runs if run["integrity"] == "ok" and run["rows"] == expected]
        errors = {kind: sum(run["errors"][kind] for run in runs) for kind in runs[0]["errors"]}
        corrupt = sum(run["integrity"] != "ok" for run in runs)
        missing = sum(max(0, run["made"] - run["rows"]) for run in runs)
        median = f"{statistics.median(run['seconds'] for run in whole):.1f} s" if whole else "none"
        print(
            f"{side}: {len(runs)} runs of {options.processes} x {options.tasks}: {corrupt} boards corrupt, "
            f"{missing} tasks lost, {errors['torn alarm']} torn alarms, {errors['locked']} times locked, "
            f"{errors['corrupt'] + errors['other']} other errors; median of the {len(whole)} whole runs: {median}"
        )
        failed |= side == "kanban" and (len(whole) < len(runs) or any(errors.values()))
    sys.exit(1 if failed else 0)


main()
