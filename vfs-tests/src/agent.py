"""A client for the tests: reads a command a line, answers a line. See vfs_tests::Agent."""

import concurrent.futures
import json
import os
import sqlite3
import sys

connections = {}
begun = {}


def run(name, sql):
    rows = []
    for statement in sql.split(";"):
        rows += connections[name].execute(statement).fetchall()
    return rows


def run_until_stopped(name, sql, *where):
    """Runs it in this thread, which stops where pause.c says."""
    connections[name].execute("SELECT pause_at(?, ?, ?, ?)", where)
    try:
        return run(name, sql)
    finally:
        connections[name].execute("SELECT pause_end()")


def answer(command, *arguments):
    if command == "open":
        name, uri, timeout = arguments
        timeout = {} if timeout is None else {"timeout": timeout / 1000}
        connections[name] = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, **timeout
        )
    elif command == "sql":
        return run(*arguments)
    elif command == "begin":
        thread = concurrent.futures.ThreadPoolExecutor(1)
        begun[arguments[0]] = thread.submit(run_until_stopped, *arguments)
        thread.shutdown(wait=False)
    elif command == "end":
        return begun.pop(arguments[0]).result()
    elif command == "close":
        connections.pop(arguments[0]).close()
    elif command == "read":
        with open(arguments[0], "rb") as file:
            file.read()
    elif command == "cd":
        os.chdir(arguments[0])
    else:
        raise ValueError(command)
    return []


loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
for extension in filter(None, [os.environ.get("PRELOAD"), sys.argv[1]]):
    loader.load_extension(extension)
for line in sys.stdin:
    try:
        reply = {"rows": answer(*json.loads(line))}
    except sqlite3.Error as error:
        reply = {"error": str(error), "code": getattr(error, "sqlite_errorcode", 0)}
    print(json.dumps(reply), flush=True)
