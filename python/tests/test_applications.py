"""Applications as they are published, started by ``run``: not one line of them knows of the VFS. Those that are large
are tested where they are installed: with ``KANBAN_TESTS=all``, as in CI, they must be."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from conftest import PATIENCE, needs

#: A Django site with its default database. A request writes a row, and says which process answered and on which VFS.
DJANGO = """
import json, os, sys
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BOARD"]}},
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x",
)
django.setup()

def answer(request):
    cursor = connection.cursor()
    cursor.execute("INSERT INTO tasks (pid) VALUES (%s)", [os.getpid()])
    row = cursor.execute("PRAGMA kanban_status").fetchone()
    return HttpResponse(json.dumps([os.getpid(), row is not None]))

urlpatterns = [path("", answer)]
connection.cursor().execute("CREATE TABLE IF NOT EXISTS tasks (pid INTEGER)")
if os.environ.get("CLOSE"):
    connection.close()
application = get_wsgi_application()
"""


def end(process: "subprocess.Popen[Any]") -> None:
    """Stops an application, and all that it has started: they are a process group."""
    for sent in [signal.SIGTERM, signal.SIGKILL]:
        try:
            os.killpg(process.pid, sent)
            process.wait(20)
            break
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


@contextlib.contextmanager
def started(place: Path, *command: str, **environment: str) -> "Iterator[subprocess.Popen[bytes]]":
    """An application, started by ``run`` in a process group of its own, until the block is over."""
    with open(place / "log", "ab") as log:
        application = subprocess.Popen(
            [sys.executable, "-m", "kanban_vfs", "run", *command],
            env={**os.environ, "PYTHONPATH": str(place), **environment},
            cwd=place,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield application
    finally:
        end(application)


def until(is_so: Callable[[], Any], place: Path) -> Any:
    """Asks again until the answer is true, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := is_so()):
        assert time.monotonic() < deadline, (place / "log").read_text()
        time.sleep(0.02)
    return answer


def clients(board: Path) -> Dict[int, Optional[str]]:
    """The processes that have a board open, and by which VFS, as an operator sees it."""
    command = [sys.executable, "-m", "kanban_vfs", "status", "--json", str(board)]
    said = json.loads(subprocess.check_output(command, timeout=PATIENCE))
    return {one["pid"]: one["vfs"] for one in said["clients"]}


def rows(board: Path, sql: str) -> List[Any]:
    """What a client reads that has the board open for as long as that takes."""
    with contextlib.closing(sqlite3.connect(board, timeout=60)) as connection:
        return connection.execute(sql).fetchall()


def is_whole(place: Path) -> bool:
    """Whether nobody has complained."""
    lines = (place / "log").read_text().lower().splitlines()
    # As root in a directory of its own, it says that others could not use the library.
    said = "\n".join(line for line in lines if "not every user may read it" not in line)
    return not any(word in said for word in ("locked", "malformed", "disk i/o error", "traceback", "kanban-vfs:"))


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_django_with_gunicorn(preload: List[str], tmp_path: Path) -> None:
    """Each of the workers is on the VFS, whether the site is imported before they are forked or in each of them."""
    pytest.importorskip("gunicorn")
    (tmp_path / "site_of_django.py").write_text(DJANGO)
    name = tmp_path / "socket"
    command = ["gunicorn", *preload, "--workers=3", f"--bind=unix:{name}", "site_of_django:application"]
    said: Dict[int, bool] = {}
    deadline = time.monotonic() + PATIENCE
    with started(tmp_path, "-m", *command, BOARD=str(tmp_path / "board.db"), CLOSE="1") as served:
        while len(said) < 3:
            assert time.monotonic() < deadline and served.poll() is None, (tmp_path / "log").read_text()
            answer = ask(str(name))
            if answer is None:
                time.sleep(0.02)
                continue
            pid, on_the_vfs = json.loads(answer)
            said[pid] = on_the_vfs
    assert list(said.values()) == [True] * 3


def ask(name: str, path: str = "/") -> "Optional[str]":
    """What a site answers; None while it does not listen yet."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(name)
        except OSError:
            return None
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], answer
    return body.decode()


#: Tasks of huey, whose queue is a database, and which write to a board of their own.
HUEY = """
import os, sqlite3
from huey import SqliteHuey

huey = SqliteHuey(filename=os.environ["BOARD"] + "-queue")

@huey.task()
def work(n):
    board = sqlite3.connect(os.environ["BOARD"], isolation_level=None, timeout=60)
    on_the_vfs = board.execute("PRAGMA kanban_status").fetchone() is not None
    queues = huey.storage.conn.execute("PRAGMA kanban_status").fetchone() is not None
    board.execute("INSERT INTO done VALUES (?, ?, ?, ?)", (n, os.getpid(), on_the_vfs, queues))
"""


def test_huey(tmp_path: Path) -> None:
    """Each of a consumer's worker processes is on the VFS, on the board and on the queue of tasks."""
    pytest.importorskip("huey")
    board_file = tmp_path / "board.db"
    (tmp_path / "tasks_of_huey.py").write_text(HUEY)
    board = sqlite3.connect(board_file, isolation_level=None, timeout=60)
    board.execute("CREATE TABLE done (n INTEGER, pid INTEGER, board INTEGER, queue INTEGER)")
    environment = {**os.environ, "BOARD": str(board_file), "PYTHONPATH": str(tmp_path)}
    enqueue = "import tasks_of_huey as it; [it.work(n) for n in range(30)]"
    subprocess.run([sys.executable, "-c", enqueue], env=environment, timeout=PATIENCE, check=True)
    consumer = str(Path(sys.executable).with_name("huey_consumer"))
    options = ["-k", "process", "-w", "3", "-d", "0.05"]
    with started(tmp_path, consumer, "tasks_of_huey.huey", *options, BOARD=str(board_file)):
        until(lambda: board.execute("SELECT count(*) FROM done").fetchone() == (30,), tmp_path)
    done = board.execute("SELECT n, board, queue FROM done ORDER BY n").fetchall()
    assert done == [(n, 1, 1) for n in range(30)]


#: A plugin by which a site writes, as Datasette's documentation shows it.
DATASETTE = """
from datasette import hookimpl, Response

async def add(datasette):
    await datasette.get_database("board").execute_write("INSERT INTO tasks (title) VALUES ('one more')")
    return Response.text("added")

@hookimpl
def register_routes():
    return [(r"^/-/add$", add)]
"""


def test_datasette(tmp_path: Path) -> None:
    """Three servers of one board, whose reading connections are read-only, and whose writing ones are threads' of their
    own. All rows are there, and each server says so."""
    needs("datasette")
    board = tmp_path / "board.db"
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "add.py").write_text(DATASETTE)
    with contextlib.closing(sqlite3.connect(board)) as connection:
        connection.executescript("PRAGMA journal_mode=wal; CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT)")
    names = [str(tmp_path / f"socket{n}") for n in range(3)]
    options = ["--plugins-dir", "plugins", "--setting", "num_sql_threads", "2"]
    with contextlib.ExitStack() as servers:
        pids = set()
        for name in names:
            command = ["datasette", "serve", str(board), "--uds", name, *options]
            pids.add(servers.enter_context(started(tmp_path, "-m", *command)).pid)
        for name in names:
            until(lambda: ask(name, "/-/versions.json"), tmp_path)
        for _ in range(10):
            assert [ask(name, "/-/add") for name in names] == ["added"] * 3
        for name in names:
            told = ask(name, "/board.json?sql=select+count(*)+from+tasks&_shape=arrays")
            assert told is not None and json.loads(told)["rows"] == [[30]]
        assert clients(board) == dict.fromkeys(pids, "kanban")
    assert rows(board, "SELECT count(*) FROM tasks") == [(30,)]


#: Tasks of celery. The broker's queue and the results are databases, and so is what a task writes to: a counter, which it
#: reads first.
CELERY = """
import os, sqlite3
from celery import Celery

place = os.environ["PLACE"]
app = Celery("tasks", broker=f"sqla+sqlite:///{place}/queue.db", backend=f"db+sqlite:///{place}/results.db")
app.conf.broker_connection_retry_on_startup = True

@app.task
def work(n):
    board = sqlite3.connect(f"{place}/board.db", timeout=60)
    with board:
        board.execute("INSERT INTO done (n, pid) VALUES (?, ?)", (n, os.getpid()))
        (total,) = board.execute("SELECT n FROM total").fetchone()
        board.execute("UPDATE total SET n = ?", (total + 1,))
    board.close()
    return n * n
"""

#: Sends the tasks, and waits for their results.
CALLS_CELERY = """
import json, tasks_of_celery as it
results = [it.work.delay(n) for n in range(30)]
print(json.dumps([result.get(timeout=100, interval=0.05) for result in results]))
"""


def test_celery(tmp_path: Path) -> None:
    """A worker with three processes, which it forks before they run a task, and the one that sends the tasks: queue,
    results and board are on the VFS in each."""
    needs("celery")
    (tmp_path / "tasks_of_celery.py").write_text(CELERY)
    (tmp_path / "calls.py").write_text(CALLS_CELERY)
    with contextlib.closing(sqlite3.connect(tmp_path / "board.db")) as connection:
        connection.executescript(
            "CREATE TABLE done (n INTEGER, pid INTEGER); CREATE TABLE total (n INTEGER); INSERT INTO total VALUES (0)"
        )
    worker = ["celery", "-A", "tasks_of_celery", "worker", "--pool=prefork", "--concurrency=3", "--loglevel=ERROR"]
    worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    environment = {"PLACE": str(tmp_path), "C_FORCE_ROOT": "1"}
    with started(tmp_path, "-m", *worker, **environment) as master:
        # Two that make the queue's tables at the same moment fail on any VFS.
        until((tmp_path / "queue.db").exists, tmp_path)
        for sql in ["SELECT 1 FROM sqlite_schema WHERE name = 'kombu_queue'", "SELECT 1 FROM kombu_queue"]:
            until(lambda: rows(tmp_path / "queue.db", sql), tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "kanban_vfs", "run", "calls.py"],
            env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (tmp_path / "log").read_text()
        assert json.loads(done.stdout) == [n * n for n in range(30)]
        # The worker keeps its queue open.
        seen = clients(tmp_path / "queue.db")
        assert seen.get(master.pid) == "kanban" and set(seen.values()) == {"kanban"}, seen
    assert rows(tmp_path / "board.db", "SELECT n FROM total") == [(30,)]
    pids = rows(tmp_path / "board.db", "SELECT DISTINCT pid FROM done")
    assert len(pids) > 1 and (master.pid,) not in pids
    assert rows(tmp_path / "results.db", "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'") == [(30,)]


#: A graph of LangGraph, whose state is kept after each step. Each process has threads of its own and one that all share.
LANGGRAPH = """
import multiprocessing, os, sys
from typing import TypedDict

class State(TypedDict):
    n: int

def graph(saver):
    from langgraph.graph import END, START, StateGraph
    builder = StateGraph(State)
    builder.add_node("add", lambda state: {"n": state["n"] + 1})
    builder.add_node("double", lambda state: {"n": state["n"] * 2})
    builder.add_edge(START, "add")
    builder.add_edge("add", "double")
    builder.add_edge("double", END)
    return builder.compile(checkpointer=saver)

def work(name):
    from langgraph.checkpoint.sqlite import SqliteSaver
    with SqliteSaver.from_conn_string(os.environ["BOARD"]) as saver:
        on_the_vfs = saver.conn.execute("PRAGMA kanban_status").fetchone() is not None
        it = graph(saver)
        for n in range(5):
            it.invoke({"n": n}, {"configurable": {"thread_id": f"{name}-{n}"}})
            it.invoke({"n": n}, {"configurable": {"thread_id": "shared"}})
        found = [it.get_state({"configurable": {"thread_id": f"{name}-{n}"}}).values["n"] for n in range(5)]
        print(name, on_the_vfs, found, flush=True)

if __name__ == "__main__":
    work("first")
    methods = ["fork", "forkserver", "spawn"]
    children = [multiprocessing.get_context(method).Process(target=work, args=(method,)) for method in methods]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
"""


def test_langgraph(tmp_path: Path) -> None:
    """The checkpointer, in a process and in children of every start method at once, on one board."""
    needs("langgraph.checkpoint.sqlite", "langgraph.graph")
    (tmp_path / "application.py").write_text(LANGGRAPH)
    board = tmp_path / "board.db"
    with started(tmp_path, "application.py", BOARD=str(board)) as application:
        assert application.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    names = ["first", "fork", "forkserver", "spawn"]
    said = sorted(line for line in (tmp_path / "log").read_text().splitlines() if "True" in line or "False" in line)
    assert said == [f"{name} True [2, 4, 6, 8, 10]" for name in names] and is_whole(tmp_path)
    threads = dict(rows(board, "SELECT thread_id, count(*) FROM checkpoints GROUP BY thread_id"))
    each = {f"{name}-{n}": 4 for name in names for n in range(5)}
    assert threads == {**each, "shared": 4 * 20}
    assert rows(board, "PRAGMA integrity_check") == [("ok",)]


#: Migrations of Alembic: the environment as ``alembic init`` writes it, in short, and three revisions, of which the last
#: copies the table.
ALEMBIC = {
    "alembic.ini": """
[alembic]
script_location = migrations
sqlalchemy.url = sqlite:///board.db
""",
    "migrations/env.py": """
from alembic import context
from sqlalchemy import engine_from_config, pool

options = context.config.get_section(context.config.config_ini_section)
connectable = engine_from_config(options, prefix="sqlalchemy.", poolclass=pool.NullPool)
with connectable.connect() as connection:
    context.configure(connection=connection, target_metadata=None, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
""",
    "migrations/versions/1.py": """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "1", None
def upgrade():
    op.create_table("tasks", sa.Column("id", sa.Integer, primary_key=True), sa.Column("pid", sa.Integer))
""",
    "migrations/versions/2.py": """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "2", "1"
def upgrade():
    op.add_column("tasks", sa.Column("title", sa.Text, server_default="none"))
""",
    "migrations/versions/3.py": """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "3", "2"
def upgrade():
    with op.batch_alter_table("tasks") as batch:
        batch.alter_column("title", existing_type=sa.Text, nullable=False, server_default="some")
        batch.create_index("by_pid", ["pid"])
""",
}

#: A worker that inserts as long as its standard input is open.
INSERTS = """
import os, select, sys
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///board.db", connect_args={"timeout": 60})
made = 0
while not select.select([sys.stdin], [], [], 0.002)[0]:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tasks (pid) VALUES (:pid)"), {"pid": os.getpid()})
    made += 1
    if made == 1:
        print("begun", flush=True)
print(made)
"""


def test_alembic(tmp_path: Path) -> None:
    """A board is migrated while three workers of SQLAlchemy insert: the last revision copies the table and drops the old
    one. No row is lost, and nobody is refused."""
    needs("alembic")
    for name, text in ALEMBIC.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "inserts.py").write_text(INSERTS)

    def upgrade(revision: str) -> None:
        with started(tmp_path, "-m", "alembic", "upgrade", revision) as alembic:
            assert alembic.wait(PATIENCE) == 0, (tmp_path / "log").read_text()

    upgrade("1")
    board = tmp_path / "board.db"
    command = [sys.executable, "-m", "kanban_vfs", "run", "inserts.py"]
    workers = [
        subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "begun\n"
        for revision in ["2", "3"]:
            upgrade(revision)
        assert clients(board) == {worker.pid: "kanban" for worker in workers}
        said = [worker.communicate("", PATIENCE)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    made = {worker.pid: int(out) for worker, out in zip(workers, said)}
    assert dict(rows(board, "SELECT pid, count(*) FROM tasks GROUP BY pid")) == made
    assert rows(board, "SELECT version_num FROM alembic_version") == [("3",)]
    assert rows(board, "PRAGMA integrity_check") == [("ok",)] and is_whole(tmp_path)
