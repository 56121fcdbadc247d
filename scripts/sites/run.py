"""Measures the sites and the patterns by hand. Usage: scripts/sites.sh [--runs N] [--clients N] [--turns N] [--only NAME]"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
#: Longer than any run takes.
TIMEOUT_S = 300

#: How each way is started: options of `run`, or None without it; and whether transactions that write begin immediately.
WAYS = {
    "stock": (None, False),
    "stock, IMMEDIATE": (None, True),
    "kanban, `kanban_begin=deferred`": (["--begin=deferred"], False),
    "kanban, `kanban_begin=immediate`": (["--begin=immediate"], False),
    "kanban, `kanban_begin=auto`": (["--begin=auto"], False),
}

#: The patterns, and what they set in the environment for transactions that begin immediately, and else.
SITES = {
    "Django": ("site_of_django", {}, {"IMMEDIATE": "1"}),
    "SQLAlchemy": ("site_of_sqlalchemy", {}, {"BEGIN": "BEGIN IMMEDIATE"}),
    "SQLAlchemy with BEGIN": ("site_of_sqlalchemy", {"BEGIN": "BEGIN"}, {"BEGIN": "BEGIN IMMEDIATE"}),
}
BY_HAND = {"Rails": "rails", "Go": "go"}


def started(options, command, environment, directory, **streams):
    """Starts an application, as `run` does it or without it."""
    command = [sys.executable, "-m", "kanban_vfs", "run", *options, *command] if options is not None else command
    command = [sys.executable, *command] if options is None else command
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KANBAN_")}
    return subprocess.Popen(
        command, env={**clean, "PYTHONPATH": str(HERE), **environment}, cwd=directory, start_new_session=True, **streams
    )


def ask(name, path):
    """Whether the site answers a request well; None while it does not listen yet."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(name)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer.split(b"\r\n", 1)[0].endswith(b" 200 OK")


def site(module, options, environment, directory, clients, turns):
    """What the clients of a site saw."""
    name = str(directory / "socket")
    command = ["-m", "gunicorn", "--workers=4", "--threads=4", f"--bind=unix:{name}", f"{module}:application"]
    log = open(directory / "log", "wb")
    server = started(options, command, environment, directory, stdout=log, stderr=log)
    seen = []
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while ask(name, "/nothing") is None:
            if time.monotonic() > deadline or server.poll() is not None:
                sys.exit((directory / "log").read_text())
            time.sleep(0.05)
        # All workers are up.
        time.sleep(1)
        gate = threading.Barrier(clients)

        def client():
            times, errors = {"write": [], "read": []}, {"write": 0, "read": 0}
            gate.wait()
            for _ in range(turns):
                for kind in ("write", "read"):
                    began = time.monotonic()
                    errors[kind] += not ask(name, "/" + kind)
                    times[kind].append(time.monotonic() - began)
            seen.append({"errors": errors, **times})

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(TIMEOUT_S)
        log.close()
    return seen


def by_hand(kind, options, begin, directory, clients, turns):
    """What the clients of a pattern by hand saw."""
    command = [str(HERE / "by_hand.py"), kind, begin, str(directory / "board.db"), str(clients), str(turns)]
    done = started(options, command, {}, directory, stdout=subprocess.PIPE, text=True)
    out, _ = done.communicate(timeout=TIMEOUT_S)
    if done.returncode != 0:
        sys.exit(f"{kind}: exit status {done.returncode}")
    return [json.loads(line) for line in out.splitlines()]


def measure(pattern, way, clients, turns):
    """One run on a new board: errors, lost updates, and times in ms."""
    options, is_immediate = WAYS[way]
    with tempfile.TemporaryDirectory() as place:
        directory = pathlib.Path(place)
        board = directory / "board.db"
        with contextlib.closing(sqlite3.connect(board)) as made:
            if pattern == "Rails":
                # As the first of its processes has left it: many that set it at once are refused by the stock VFS.
                made.execute("PRAGMA journal_mode=WAL")
            made.executescript("CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO counter VALUES (1, 0)")
        if pattern in SITES:
            module, *environments = SITES[pattern]
            environment = {**environments[is_immediate], "BOARD": str(board)}
            seen = site(module, options, environment, directory, clients, turns)
        else:
            begin = "BEGIN IMMEDIATE" if is_immediate else "BEGIN"
            seen = by_hand(BY_HAND[pattern], options, begin, directory, clients, turns)
        with contextlib.closing(sqlite3.connect(board)) as made:
            (n,) = made.execute("SELECT n FROM counter").fetchone()
    writes = [t * 1e3 for one in seen for t in one["write"]]
    reads = [t * 1e3 for one in seen for t in one["read"]]
    errors = {kind: sum(one["errors"][kind] for one in seen) for kind in ("write", "read")}
    if len(writes) != clients * turns:
        sys.exit(f"{pattern}, {way}: a client is missing")
    return {
        "errors": sum(errors.values()),
        # Where two have read the same number, one is lost, and no error says so.
        "lost": len(writes) - errors["write"] - n,
        "longest": max(writes),
        "read": statistics.median(reads),
        "longest read": max(reads),
    }


def main():
    parser = argparse.ArgumentParser(prog="scripts/sites.sh", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--turns", type=int, default=25, help="of each client: a write and a read")
    parser.add_argument("--only", choices=[*SITES, *BY_HAND], action="append", help="these patterns")
    arguments = parser.parse_args()
    patterns = arguments.only or [*SITES, *BY_HAND]
    seen = {(pattern, way): [] for pattern in patterns for way in WAYS}
    for _ in range(arguments.runs):
        for pattern, way in seen:
            run = measure(pattern, way, arguments.clients, arguments.turns)
            seen[pattern, way].append(run)
            said = ", ".join(f"{name} {value:.1f}" for name, value in run.items())
            print(f"{pattern}, {way}: {said}", file=sys.stderr, flush=True)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, stdout=subprocess.PIPE, text=True)
    print(
        f"{datetime.date.today()}, commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}; medians of {arguments.runs} runs (most)\n"
    )
    all_of_them = arguments.clients * arguments.turns
    print(f"| of {all_of_them} requests | errors | lost updates | longest, ms | a read, ms | longest read, ms |")
    print("|---|---|---|---|---|---|")
    for pattern in patterns:
        print(f"| **{pattern}** | | | | | |")
        for way in WAYS:
            runs = seen[pattern, way]

            def cell(name, digits=0):
                values = [run[name] for run in runs]
                return f"{statistics.median(values):.{digits}f} ({max(values):.{digits}f})"

            cells = [cell("errors"), cell("lost"), cell("longest"), cell("read", 2), cell("longest read")]
            print(f"| {way} | {' | '.join(cells)} |")


main()
