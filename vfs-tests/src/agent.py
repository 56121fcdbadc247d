"""A client for the tests: reads a command a line, answers a line. See vfs_tests::Agent."""

import json
import os
import sqlite3
import sys

connections = {}


def answer(command, *arguments):
    if command == "open":
        name, uri, timeout = arguments
        timeout = {} if timeout is None else {"timeout": timeout / 1000}
        connections[name] = sqlite3.connect(uri, uri=True, isolation_level=None, **timeout)
    elif command == "sql":
        name, sql = arguments
        rows = []
        for statement in sql.split(";"):
            rows += connections[name].execute(statement).fetchall()
        return rows
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
loader.load_extension(sys.argv[1])
for line in sys.stdin:
    try:
        reply = {"rows": answer(*json.loads(line))}
    except sqlite3.Error as error:
        reply = {"error": str(error), "code": getattr(error, "sqlite_errorcode", 0)}
    print(json.dumps(reply), flush=True)
