"""Applications as they are published, started by ``run``: not one line of them knows of the VFS."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from conftest import PATIENCE

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


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_django_with_gunicorn(preload: List[str], tmp_path: Path) -> None:
    """Each of the workers is on the VFS, whether the site is imported before they are forked or in each of them."""
    pytest.importorskip("gunicorn")
    (tmp_path / "site_of_django.py").write_text(DJANGO)
    name = tmp_path / "socket"
    command = ["gunicorn", *preload, "--workers=3", f"--bind=unix:{name}", "site_of_django:application"]
    environment = {**os.environ, "BOARD": str(tmp_path / "board.db"), "PYTHONPATH": str(tmp_path), "CLOSE": "1"}
    with open(tmp_path / "log", "wb") as log:
        served = subprocess.Popen(
            [sys.executable, "-m", "kanban_vfs", "run", "-m", *command],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    said: Dict[int, bool] = {}
    deadline = time.monotonic() + PATIENCE
    try:
        while len(said) < 3:
            assert time.monotonic() < deadline and served.poll() is None, (tmp_path / "log").read_text()
            answer = ask(str(name))
            if answer is None:
                time.sleep(0.02)
                continue
            pid, on_the_vfs = json.loads(answer)
            said[pid] = on_the_vfs
    finally:
        end(served)
    assert list(said.values()) == [True] * 3


def ask(name: str) -> "Optional[str]":
    """What the site answers; None while it does not listen yet."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(name)
        except OSError:
            return None
        connection.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
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
    import sqlite3

    board_file = tmp_path / "board.db"
    (tmp_path / "tasks_of_huey.py").write_text(HUEY)
    board = sqlite3.connect(board_file, isolation_level=None, timeout=60)
    board.execute("CREATE TABLE done (n INTEGER, pid INTEGER, board INTEGER, queue INTEGER)")
    environment = {**os.environ, "BOARD": str(board_file), "PYTHONPATH": str(tmp_path)}
    enqueue = "import tasks_of_huey as it; [it.work(n) for n in range(30)]"
    subprocess.run([sys.executable, "-c", enqueue], env=environment, timeout=PATIENCE, check=True)
    consumer = str(Path(sys.executable).with_name("huey_consumer"))
    options = ["-k", "process", "-w", "3", "-d", "0.05"]
    with open(tmp_path / "log", "wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "kanban_vfs", "run", consumer, "tasks_of_huey.huey", *options],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + PATIENCE
    try:
        while board.execute("SELECT count(*) FROM done").fetchone() != (30,):
            assert time.monotonic() < deadline and started.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
    finally:
        end(started)
    rows = board.execute("SELECT n, board, queue FROM done ORDER BY n").fetchall()
    assert rows == [(n, 1, 1) for n in range(30)]
