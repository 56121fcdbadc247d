"""SQLAlchemy and Django, as the README shows them."""

import os
import threading

from conftest import python, run_at_once

import kanban_vfs

SQLALCHEMY = """
import sys
import kanban_vfs
from sqlalchemy import create_engine, event, text

kanban_vfs.register()
engine = create_engine("sqlite:///file:" + sys.argv[1] + "?vfs=kanban&uri=true")

@event.listens_for(engine, "connect")
def python_begins_nothing(connection, _):
    connection.isolation_level = None

@event.listens_for(engine, "begin")
def begin_immediate(connection):
    connection.exec_driver_sql("BEGIN IMMEDIATE")

for _ in range(int(sys.argv[2])):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS tasks (n INTEGER)"))
        n = connection.execute(text("SELECT count(*) FROM tasks")).scalar_one()
        connection.execute(text("INSERT INTO tasks VALUES (:n)"), {"n": n})
"""

DJANGO = """
import sys
import django
from django.conf import settings
import kanban_vfs

kanban_vfs.register()
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": kanban_vfs.uri(sys.argv[1]),
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 60},
        }
    },
)
django.setup()
from django.db import connection, models, transaction

class Task(models.Model):
    n = models.IntegerField()
    class Meta:
        app_label = "board"

with transaction.atomic():
    if "board_task" not in connection.introspection.table_names():
        # The schema editor wants no transaction around it.
        connection.cursor().execute("CREATE TABLE board_task (id INTEGER PRIMARY KEY, n INTEGER)")
for _ in range(int(sys.argv[2])):
    with transaction.atomic():
        Task.objects.create(n=Task.objects.count())
"""


def numbered_without_a_gap(program: str, path: str, table: str) -> None:
    """Eight processes number their tasks: each reads before it writes, so that two that read the
    same would show, and a transaction that did not begin as a writer would be refused."""
    is_over, was_used = threading.Event(), threading.Event()

    def watch() -> None:
        while not is_over.is_set() and not was_used.is_set():
            if os.path.exists(path + "-lock"):
                was_used.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_at_once([["-c", program, path, "20"]] * 8)
    is_over.set()
    watcher.join()
    board = kanban_vfs.connect(path)
    rows = [n for (n,) in board.execute(f"SELECT n FROM {table} ORDER BY n")]
    assert rows == list(range(160))
    assert was_used.is_set(), "the VFS was not used"


def test_sqlalchemy(tmp_path: os.PathLike) -> None:  # type: ignore[type-arg]
    numbered_without_a_gap(SQLALCHEMY, os.path.join(tmp_path, "board.db"), "tasks")


def test_django(board: str) -> None:
    numbered_without_a_gap(DJANGO, board, "board_task")


def test_sqlalchemy_with_a_creator(board: str) -> None:
    """A name with characters that mean something in a URL."""
    program = """
import sys
import kanban_vfs
from sqlalchemy import QueuePool, create_engine, text

engine = create_engine(
    "sqlite://",
    creator=lambda: kanban_vfs.connect(sys.argv[1], check_same_thread=False),
    poolclass=QueuePool,
)
with engine.begin() as connection:
    print(connection.execute(text("PRAGMA kanban_status")).scalar_one())
"""
    assert '"vfs":"kanban/unix"' in python(program, board)
