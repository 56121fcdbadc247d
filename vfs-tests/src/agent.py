"""A client for the tests: reads a command a line, answers a line. See vfs_tests::Agent."""

import concurrent.futures
import ctypes
import json
import os
import resource
import signal
import sqlite3
import sys

connections = {}
begun = {}
# An extension may be unloaded when the connection that has loaded it is closed.
loaders = []
# The process id of a child made by fork, and the pipes to and from it.
child = None


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


def load(extension):
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(extension)
    loaders.append(loader)


def register():
    load(sys.argv[1])


class SecondCopy:
    """Another copy of SQLite in this process, which knows nothing of the first."""

    def __init__(self, library):
        self.library = ctypes.CDLL(library, mode=ctypes.RTLD_LOCAL)
        self.library.sqlite3_errmsg.restype = ctypes.c_char_p

    def connect(self, uri, timeout):
        return SecondConnection(self.library, uri, timeout)

    def register(self):
        loader = self.connect(":memory:", 0)
        loader.check(self.library.sqlite3_enable_load_extension(loader.db, 1))
        extension = sys.argv[1].encode()
        loader.check(self.library.sqlite3_load_extension(loader.db, extension, None, None))
        loader.close()


class SecondConnection:
    """What this file uses of sqlite3.Connection."""

    Row = ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_char_p),
    )

    def __init__(self, library, uri, timeout):
        self.library, self.db, self.rows = library, ctypes.c_void_p(), []
        flags = 0x46  # READWRITE, CREATE, URI
        self.check(library.sqlite3_open_v2(uri.encode(), ctypes.byref(self.db), flags, None))
        library.sqlite3_busy_timeout(self.db, timeout)

    def check(self, rc):
        if rc != 0:
            error = sqlite3.OperationalError(self.library.sqlite3_errmsg(self.db).decode())
            error.sqlite_errorcode = rc
            raise error

    def execute(self, sql):
        self.rows = []

        def row(_, n, values, __):
            # sqlite3_exec gives out text only.
            self.rows.append([value and value.decode() for value in values[:n]])
            return 0

        self.check(self.library.sqlite3_exec(self.db, sql.encode(), self.Row(row), None, None))
        return self

    def fetchall(self):
        return self.rows

    def close(self):
        self.check(self.library.sqlite3_close(self.db))


second = None


def fork():
    global child
    commands, to_child = os.pipe()
    from_child, replies = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(to_child)
        os.close(from_child)
        child = None
        with open(commands) as commands, open(replies, "w") as replies:
            serve(commands, replies)
        # Not os._exit: the interpreter closes what is open.
        sys.exit(0)
    os.close(commands)
    os.close(replies)
    child = pid, open(to_child, "w"), open(from_child)


def child_without_handlers(how, fifo):
    """Starts a child that runs no fork handlers and hangs until somebody writes to the FIFO. A
    posix_spawn hangs with it."""
    if how.startswith("posix_spawn"):
        # In place of the sidecar's it closes that, though it shares its parent's mapping of it.
        is_sidecar = lambda fd: os.path.exists(fd) and os.readlink(fd).endswith("-lock")
        sidecars = [fd for fd in os.listdir("/proc/self/fd") if is_sidecar(f"/proc/self/fd/{fd}")]
        fd = int(sidecars[0]) if sidecars and how.endswith("sidecar") else 200
        actions = [(os.POSIX_SPAWN_OPEN, fd, fifo, os.O_RDONLY, 0)]
        os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ, file_actions=actions)
        return
    # PyDLL keeps the interpreter's lock, which the child needs.
    libc = ctypes.PyDLL(None)
    if how == "_Fork":
        pid = libc._Fork()
    else:
        SYS_clone = 220 if os.uname().machine == "aarch64" else 56
        pid = libc.syscall(SYS_clone, signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os.open(fifo, os.O_RDONLY)
        os._exit(0)


def answer(command, *arguments):
    global child, second
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
            file.read(16)
    elif command == "cd":
        os.chdir(arguments[0])
    elif command == "register":
        register()
    elif command == "load second copy":
        second = SecondCopy(arguments[0])
    elif command == "register second copy":
        second.register()
    elif command == "open second copy":
        name, uri, timeout = arguments
        connections[name] = second.connect(uri, timeout)
    elif command == "become nobody":
        if os.geteuid() == 0:
            os.setuid(65534)
    elif command == "chroot":
        os.chroot(arguments[0])
        os.chdir("/")
    elif command == "cover":
        libc = ctypes.CDLL(None)
        CLONE_NEWNS, MS_REC_PRIVATE = 0x20000, 0x44000
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
        assert libc.mount(b"tmpfs", arguments[0].encode(), b"tmpfs", 0, None) == 0
    elif command == "become":
        user, group, groups, umask = arguments
        os.setgroups(groups)
        os.setgid(group)
        os.setuid(user)
        os.umask(umask)
    elif command == "use descriptors":
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for _ in range(arguments[0]):
            os.open("/dev/null", os.O_RDONLY)
    elif command == "descriptors":
        return [[len(os.listdir("/proc/self/fd"))]]
    elif command == "fork":
        fork()
    elif command == "child without handlers":
        child_without_handlers(*arguments)
    elif command == "kill child":
        pid = child[0]
        child = None
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    elif command == "end child":
        pid, to_child, from_child = child
        child = None
        to_child.close()
        from_child.read()
        status = os.waitpid(pid, 0)[1]
        return [[os.waitstatus_to_exitcode(status)]]
    else:
        raise ValueError(command)
    return []


def serve(commands, replies):
    for line in commands:
        command = json.loads(line)
        if command[0] == "child":
            _, to_child, from_child = child
            print(json.dumps(command[1]), file=to_child, flush=True)
            print(from_child.readline().strip(), file=replies, flush=True)
            continue
        try:
            reply = {"rows": answer(*command)}
        except sqlite3.Error as error:
            reply = {"error": str(error), "code": getattr(error, "sqlite_errorcode", 0)}
        print(json.dumps(reply), file=replies, flush=True)


if "PRELOAD" in os.environ:
    load(os.environ["PRELOAD"])
if "STOCK_AGENT" not in os.environ:
    register()
serve(sys.stdin, sys.stdout)
