"""Python: peewee, aiosqlite, Alembic, huey, LangGraph."""

import asyncio
import contextlib
import io
import sys
import tempfile
from typing import TypedDict

import aiosqlite
import alembic.command
import alembic.config
import huey
import kanban_vfs
import langgraph.checkpoint.sqlite
import langgraph.checkpoint.sqlite.aio
import langgraph.graph
import peewee

kanban_vfs.register()
name = kanban_vfs.uri(sys.argv[1])


def with_peewee() -> None:
    board = peewee.SqliteDatabase(name, uri=True, timeout=5)
    board.execute_sql("CREATE TABLE IF NOT EXISTS tasks (who TEXT)")
    for _ in range(20):
        with board.atomic("IMMEDIATE"):
            board.execute_sql("INSERT INTO tasks VALUES ('peewee')")
    assert '"vfs":"kanban/' in board.execute_sql("PRAGMA kanban_status").fetchone()[0]


async def with_aiosqlite() -> None:
    async with aiosqlite.connect(name, uri=True, isolation_level="IMMEDIATE") as board:
        for _ in range(20):
            await board.execute("INSERT INTO tasks VALUES ('aiosqlite')")
            await board.commit()
        async with board.execute("PRAGMA kanban_status") as status:
            assert '"vfs":"kanban/' in (await status.fetchone())[0]


def with_alembic() -> None:
    with tempfile.TemporaryDirectory() as directory:
        configuration = alembic.config.Config(stdout=io.StringIO())
        configuration.set_main_option("script_location", directory + "/migrations")
        configuration.set_main_option("sqlalchemy.url", f"sqlite:///{name}&uri=true".replace("%", "%%"))
        configuration.config_file_name = directory + "/alembic.ini"
        alembic.command.init(configuration, directory + "/migrations")
        configuration.config_file_name = None
        revision = alembic.command.revision(configuration, "asked")
        with open(revision.path, encoding="utf-8") as file:
            text = file.read()
        asked = "    assert '\"vfs\":\"kanban/' in op.get_bind().exec_driver_sql('PRAGMA kanban_status').scalar()\n"
        asked += "    op.execute(\"INSERT INTO tasks VALUES ('alembic')\")\n"
        with open(revision.path, "w", encoding="utf-8") as file:
            file.write(text.replace("    pass\n", asked, 1))
        alembic.command.upgrade(configuration, "head")


def insert(who: str) -> None:
    """What a task does, by a connection of its own."""
    with contextlib.closing(kanban_vfs.connect(sys.argv[1], isolation_level="IMMEDIATE")) as board, board:
        board.execute("INSERT INTO tasks VALUES (?)", (who,))


def with_huey() -> None:
    queue = huey.SqliteHuey(filename=name, uri=True, store_none=True)
    work = queue.task()(insert)
    results = [work("huey") for _ in range(20)]
    consumer = queue.create_consumer(workers=2, periodic=False, initial_delay=0.01, max_delay=0.1)
    consumer.start()
    for result in results:
        result.get(blocking=True, timeout=60, preserve=True)
    consumer.stop(graceful=True)
    assert '"vfs":"kanban/' in queue.storage.conn.execute("PRAGMA kanban_status").fetchone()[0]


class State(TypedDict):
    who: str


def write(state: State) -> State:
    insert(state["who"])
    return state


graph = langgraph.graph.StateGraph(State)
graph.add_node("write", write)
graph.add_edge(langgraph.graph.START, "write")
graph.add_edge("write", langgraph.graph.END)


def with_langgraph() -> None:
    board = kanban_vfs.connect(sys.argv[1], check_same_thread=False)
    saver = langgraph.checkpoint.sqlite.SqliteSaver(board)
    for n in range(10):
        thread = {"configurable": {"thread_id": str(n)}}
        graph.compile(checkpointer=saver).invoke({"who": "langgraph"}, thread)
        assert saver.get_tuple(thread) is not None
    assert '"vfs":"kanban/' in board.execute("PRAGMA kanban_status").fetchone()[0]


async def with_langgraph_async() -> None:
    async with aiosqlite.connect(name, uri=True) as board:
        saver = langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver(board)
        for n in range(10):
            thread = {"configurable": {"thread_id": f"async {n}"}}
            await graph.compile(checkpointer=saver).ainvoke({"who": "langgraph"}, thread)
            assert await saver.aget_tuple(thread) is not None


with_peewee()
asyncio.run(with_aiosqlite())
with_alembic()
with_huey()
with_langgraph()
asyncio.run(with_langgraph_async())
