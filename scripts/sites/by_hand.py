"""Transactions as frameworks of other languages make them, by hand: 16 clients at once, each of which writes and reads in turn.

    by_hand.py rails|go BEGIN BOARD CLIENTS TURNS

rails: 16 processes, WAL mode and synchronous=NORMAL, as ActiveRecord sets them. ActiveRecord begins with BEGIN DEFERRED before
Rails 8, and with IMMEDIATE since. go: a pool of 16 connections in one process, in the database's own journal mode, as database/sql has
it with mattn/go-sqlite3. Both drivers wait for 5 s. Prints a JSON line for each client, as the sites' client does.
"""

import json
import os
import sqlite3
import sys
import threading
import time

STATEMENTS = {
    "rails": {
        "open": ["PRAGMA foreign_keys = ON", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"],
        "read": 'SELECT "counter".* FROM "counter" WHERE "counter"."id" = ? LIMIT ?',
        "write": 'UPDATE "counter" SET "n" = ? WHERE "counter"."id" = ?',
        "list": 'SELECT COUNT(*) FROM "counter" WHERE "counter"."n" >= ?',
    },
    "go": {
        "open": [],
        "read": "SELECT id, n FROM counter WHERE id = ? LIMIT ?",
        "write": "UPDATE counter SET n = ? WHERE id = ?",
        "list": "SELECT count(*) FROM counter WHERE n >= ?",
    },
}


def client(kind, begin, path, turns, gate):
    statements = STATEMENTS[kind]
    board = sqlite3.connect(path, timeout=5, isolation_level=None)
    for sql in statements["open"]:
        board.execute(sql)

    def write():
        board.execute(begin)
        _, n = board.execute(statements["read"], (1, 1)).fetchone()
        time.sleep(0.001)
        board.execute(statements["write"], (n + 1, 1))
        board.execute("COMMIT")

    def read():
        # Neither knows that it only reads.
        board.execute("BEGIN")
        board.execute(statements["list"], (0,)).fetchone()
        board.execute("COMMIT")

    times = {"write": [], "read": []}
    errors = {"write": 0, "read": 0}
    gate()
    for _ in range(turns):
        for name, request in (("write", write), ("read", read)):
            began = time.monotonic()
            try:
                request()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                errors[name] += 1
                if board.in_transaction:
                    board.execute("ROLLBACK")
            times[name].append(time.monotonic() - began)
    sys.stdout.write(json.dumps({"errors": errors, **times}) + "\n")
    sys.stdout.flush()


def main():
    kind, begin, path, clients, turns = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    if kind == "go":
        gate = threading.Barrier(clients)
        threads = [threading.Thread(target=client, args=(kind, begin, path, turns, gate.wait)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return
    ready, tell = os.pipe()
    go, start = os.pipe()
    children = []
    for _ in range(clients):
        child = os.fork()
        if child == 0:
            os.close(start)
            # All begin when the last one is ready.
            client(kind, begin, path, turns, lambda: (os.write(tell, b"x"), os.read(go, 1)))
            os._exit(0)
        children.append(child)
    for _ in range(clients):
        os.read(ready, 1)
    os.close(start)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    sys.exit(1 if failed else 0)


main()
