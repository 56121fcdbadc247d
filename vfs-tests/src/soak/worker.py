"""Clients of the soak test on Debian's SQLite 3.40.1: see soak/worker.rs, soak/rows.rs and
soak/diary.rs, whose rules these are. Without an extension (an empty argument) it is a stock client."""

import multiprocessing
import os
import random
import sqlite3
import sys
import time

BUSY, BUSY_SNAPSHOT = 5, 517


def body(writer, txn, part):
    h = (writer * 1_000_003 + txn * 10_007 + part * 101) % 65_521
    length = 20 + h % 180 + (5000 + h % 9000 if h % 97 == 0 else 0)
    text = f"{writer}.{txn}.{part};"
    return (text * (length // len(text) + 1))[:length]


class Writer:
    """A connection, and the diary of what it commits."""

    def __init__(self, uri, directory, writer, timeout):
        self.writer, self.txn = writer, 0
        self.diary = os.open(
            os.path.join(directory, str(writer)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        self.say("v " + ("stock" if "vfs=unix" in uri else "kanban"))
        if "vfs=kanban" in uri and random.randrange(2) == 0:
            uri += "&kanban_group_commit=1"
            self.say("n group commit")
        self.board = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout / 1000)
        try:
            self.board.execute("PRAGMA journal_mode=wal")
            if "vfs=unix" in uri:
                # Beside another stock client it could run into the WAL-reset bug.
                self.board.execute("PRAGMA wal_autocheckpoint=0")
            self.board.execute("PRAGMA synchronous=" + random.choice(["full", "normal", "off"]))
        except sqlite3.Error as error:
            self.failed(error)

    def say(self, line):
        os.write(self.diary, (line + "\n").encode())

    def failed(self, error):
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF == BUSY:
            self.say("n busy elsewhere")
        else:
            self.say(f"e {code} {error}".replace("\n", " "))

    def transaction(self):
        self.txn += 1
        self.say(f"a {self.txn}")
        began = time.monotonic()
        waited = lambda: int((time.monotonic() - began) * 1000)
        upgrades = random.randrange(8) == 0
        try:
            self.board.execute("BEGIN" if upgrades else "BEGIN IMMEDIATE")
            begun = waited()
            if upgrades:
                self.board.execute("SELECT n FROM tally").fetchall()
            self.board.executemany(
                "INSERT INTO row (writer, txn, part, body) VALUES (?, ?, ?, ?)",
                [
                    (self.writer, self.txn, part, body(self.writer, self.txn, part))
                    for part in range(1 + (self.writer + self.txn * 7) % 4)
                ],
            )
            self.board.execute("UPDATE tally SET n = n + 1")
            self.board.execute("COMMIT")
            self.say(f"c {self.txn} {begun} {int(time.monotonic() * 1000)}")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if self.board.in_transaction:
                self.board.execute("ROLLBACK")
            if code & 0xFF != BUSY:
                self.failed(error)
            elif upgrades:
                self.say(f"r {self.txn}")
            else:
                self.say(f"b {self.txn} {waited()}")


def child(inherited, uri, directory, writer, timeout, touches):
    """A child of fork: its own connection works, its parent's does not."""
    own = Writer(uri, directory, writer, timeout)
    if touches:
        try:
            inherited.board.execute("UPDATE tally SET n = n")
            own.say("e the child wrote with its parent's connection")
        except sqlite3.Error:
            own.say("n inherited connection refused")
    for _ in range(random.randrange(1, 12)):
        own.transaction()
    own.board.close()
    own.say("n child of fork")


def main(extension, uri, directory, first, transactions, timeout, forks):
    first, transactions, timeout = int(first), int(transactions), int(timeout)
    if extension:
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(extension)
    writer = Writer(uri, directory, first, timeout)
    stop = os.path.join(os.path.dirname(os.path.dirname(directory)), "stop")
    children = 0
    for n in range(transactions):
        if os.path.exists(stop):
            break
        writer.transaction()
        time.sleep(random.random() * 0.02)
        if forks == "forks" and n % 10 == 9 and children < 60:
            children += 1
            process = multiprocessing.get_context("fork").Process(
                target=child,
                args=(writer, uri, directory, first + children, timeout, children % 2),
            )
            process.start()
            if children % 3:
                process.join()
    writer.board.close()


main(*sys.argv[1:])
