"""What python/README.md shows: its pieces of code as they stand there, with SQLAlchemy and Django, too."""

import os
import re
import threading
from pathlib import Path

from conftest import ROOT, python, run_at_once

import kanban_vfs


def shown(heading: str) -> str:
    """The piece of Python below a heading of python/README.md. Its board is in the directory that is the first argument."""
    text = (ROOT / "python/README.md").read_text()
    found = re.search(rf"^#+ {heading}$.*?^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return "import os, sys\nos.chdir(sys.argv[1])\n" + found[1]


#: With ``kanban_begin=auto`` a kind of transaction is refused once for a board, in those processes that are in one.
SQLALCHEMY = shown("SQLAlchemy") + """
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

refused = numbered = 0
while numbered < int(sys.argv[2]):
    try:
        with engine.begin() as connection:
            n = connection.execute(text("SELECT count(*) FROM tasks")).scalar_one()
            connection.execute(text("INSERT INTO tasks VALUES (:n)"), {"n": n})
        numbered += 1
    except OperationalError:
        refused += 1
assert refused <= 3, refused
"""

DJANGO = shown("Django") + """
import django
from django.conf import settings

if len(sys.argv) > 3:
    DATABASES["default"].update(NAME=kanban_vfs.uri("board.db", kanban_begin=sys.argv[3]), OPTIONS={"timeout": 60})
settings.configure(DATABASES=DATABASES)
django.setup()
from django.db import connection, models, transaction

class Task(models.Model):
    n = models.IntegerField()
    class Meta:
        app_label = "board"

with transaction.atomic():
    # The schema editor wants no transaction around it.
    connection.cursor().execute("CREATE TABLE IF NOT EXISTS board_task (id INTEGER PRIMARY KEY, n INTEGER)")
"""

DJANGO_NUMBERS = DJANGO + """
for _ in range(int(sys.argv[2])):
    with transaction.atomic():
        Task.objects.create(n=Task.objects.count())
"""


def numbered_without_a_gap(program: str, directory: Path, table: str) -> None:
    """Eight processes number their tasks: each reads before it writes, so that two that read the
    same would show, and a transaction that did not begin as a writer would be refused."""
    is_over, was_used = threading.Event(), threading.Event()
    path = str(directory / "board.db")

    def watch() -> None:
        while not is_over.is_set() and not was_used.is_set():
            if os.path.exists(path + "-lock"):
                was_used.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_at_once([["-c", program, str(directory), "20"]] * 8)
    finally:
        is_over.set()
        watcher.join()
    board = kanban_vfs.connect(path)
    numbers = sorted(int(row[-1]) for row in board.execute(f"SELECT * FROM {table}"))
    assert numbers == list(range(160))
    assert was_used.is_set(), "the VFS was not used"


def test_sqlalchemy(tmp_path: Path) -> None:
    numbered_without_a_gap(SQLALCHEMY, tmp_path, "tasks")


def test_django(tmp_path: Path) -> None:
    numbered_without_a_gap(DJANGO_NUMBERS, tmp_path, "board_task")


def test_the_first_piece(tmp_path: Path) -> None:
    """One connection has begun to write. Another, as the README makes it, reads what is committed, and does not wait."""
    program = """
board.execute("PRAGMA journal_mode=wal")
reader = kanban_vfs.connect("board.db", isolation_level="IMMEDIATE", timeout=0)
with board:
    board.execute("INSERT INTO tasks VALUES ('beside')")
    print(reader.execute("SELECT count(*) FROM tasks").fetchall())
print(reader.execute("SELECT count(*) FROM tasks").fetchall())
"""
    said = python(shown("kanban-vfs for Python") + program, str(tmp_path))
    assert said == "None\n[(1,)]\n[(2,)]\n"


def test_two_modules(tmp_path: Path) -> None:
    program = """
print(bool(board.execute("PRAGMA kanban_status").fetchall()))
"""
    assert python(shown("Which Python, which SQLite") + program, str(tmp_path)) == "True\n"


def test_a_reader_beside_a_writer_in_sqlalchemy(tmp_path: Path) -> None:
    """A transaction that only reads lets another write, and is not kept waiting by one that has written."""
    program = """
from sqlalchemy import text

kanban_vfs.connect("board.db").execute("PRAGMA journal_mode=wal")
def count(connection):
    return connection.execute(text("SELECT count(*) FROM tasks")).scalar_one()
with engine.begin() as reader:
    before = count(reader)
    with engine.begin() as writer:
        writer.execute(text("INSERT INTO tasks VALUES ('beside')"))
        with engine.begin() as another:
            print(before, count(another))
    print(count(reader))
with engine.begin() as reader:
    print(count(reader))
"""
    assert python(shown("SQLAlchemy") + program, str(tmp_path)) == "0 0\n0\n1\n"


def test_a_reader_beside_a_writer_in_django(tmp_path: Path) -> None:
    """A query outside of a transaction does not wait for a transaction that has written. One that only reads in a transaction
    waits with IMMEDIATE, and does not with ``kanban_begin=auto``."""
    program = """
import threading
connection.cursor().execute("PRAGMA journal_mode=wal")

def beside(read):
    def work():
        connection.ensure_connection()
        connection.cursor().execute("PRAGMA busy_timeout=0")
        try:
            print(read())
        except django.db.OperationalError as error:
            print(error)
        connection.close()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def in_a_transaction():
    with transaction.atomic():
        return Task.objects.count()

with transaction.atomic():
    Task.objects.create(n=0)
    beside(Task.objects.count)
    beside(in_a_transaction)
"""
    assert python(DJANGO + program, str(tmp_path), "0") == "0\ndatabase is locked\n"
    assert python(DJANGO + program, str(tmp_path), "0", "auto") == "1\n1\n"


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
