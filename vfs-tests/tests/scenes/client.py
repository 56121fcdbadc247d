"""A client of a scene: reads a piece of Python a line, runs it, answers with what it gave. See main.rs.

What the pieces may use: the functions below, and modules that are imported here.
"""

import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

VFS, EXTENSION, JOURNAL = sys.argv[1:4]
BOARD = os.path.join(os.getcwd(), "board.db")
libc = ctypes.CDLL(None, use_errno=True)

# A scene may close the standard streams, and all that comes after them: what the test is told goes elsewhere.
os.dup2(0, 900)
os.dup2(1, 901)
commands, replies = open(900), open(901, "w")
null = os.open(os.devnull, os.O_RDWR)
for stream in 0, 1, 2:
    os.dup2(null, stream)
os.close(null)

connections = {}
if VFS == "kanban":
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(EXTENSION)
    loader.close()


def connect(name="c", path=None, timeout=0, more="", **options):
    """Opens a database as connection `name`; the timeout is in ms."""
    path = os.path.abspath(path or BOARD).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file:{path}?vfs={VFS}{more}"
    connections[name] = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout / 1000, **options
    )


def sql(text, name="c"):
    """Runs statements, and returns the rows of all."""
    if name not in connections:
        connect(name)
    rows = []
    for statement in text.split(";"):
        rows += connections[name].execute(statement).fetchall()
    return rows


def close(name="c"):
    connections.pop(name).close()


def make(path=None, journal=JOURNAL):
    """Creates a board with one row, and closes it."""
    connect("maker", path)
    sql(f"PRAGMA journal_mode={journal}; CREATE TABLE t (x); INSERT INTO t VALUES (1)", "maker")
    close("maker")


def write(name="c"):
    sql("INSERT INTO t VALUES (1)", name)


def count(name="c"):
    return sql("SELECT count(*) FROM t", name)[0][0]


def once(path=None):
    """Opens, writes a row, closes."""
    connect("once", path)
    try:
        write("once")
        return count("once")
    finally:
        close("once")


def waits(ms):
    """Sets the busy timeout."""
    sql(f"PRAGMA busy_timeout={ms}")


def become(user, umask=0o022):
    """A user of a group of his own, who is a member of group 3000, too."""
    os.setgroups([user, 3000])
    os.setgid(user)
    os.setuid(user)
    os.umask(umask)


def child(code, wait=True):
    """Runs code in a forked child. What it gave."""
    read, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(told, json.dumps(outcome(code)).encode())
        os._exit(0)
    os.close(told)
    if not wait:
        return pid
    with open(read) as pipe:
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return json.loads(text) if status == 0 else f"exits with {status}"


def in_thread(code):
    """Runs code in another thread. What it gave."""
    result = []
    thread = threading.Thread(target=lambda: result.append(outcome(code)))
    thread.start()
    thread.join()
    return result[0]


def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False


def only(descriptors):
    """Lets this process open so many more files."""
    # The listing has a descriptor of its own, which is closed now.
    used = {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 0
    while descriptors or limit in used:
        descriptors -= limit not in used
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def backup(source, target):
    """Copies connection `source` over connection `target`, by SQLite's backup."""
    connections[source].backup(connections[target])


def lock(kind, path=None, start=0, length=0):
    """Locks bytes of a file as programs do that know nothing of SQLite."""
    global locked
    locked = open(path or BOARD, "r+b")
    fcntl.lockf(locked, kind | fcntl.LOCK_NB, length, start)


def look(path):
    """What a database that is nobody's any more holds: whether it is sound, and how many rows are in its tables."""
    connect("look", path)
    sound = sql("PRAGMA integrity_check", "look") == [("ok",)]
    tables = sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", "look")
    rows = sum(sql(f'SELECT count(*) FROM "{name}"', "look")[0][0] for (name,) in tables)
    close("look")
    return (sound, rows)


def outcome(code):
    try:
        try:
            value = eval(code, globals())
        except SyntaxError:
            exec(code, globals())
            value = None
        return {"value": repr(value)}
    except sqlite3.Error as error:
        # Python before 3.11 has the message only.
        return {"error": getattr(error, "sqlite_errorname", str(error))}
    except OSError as error:
        return {"error": os.strerror(error.errno or 0)}


for line in commands:
    print(json.dumps(outcome(line.strip())), file=replies, flush=True)
