"""Python: peewee, aiosqlite, Alembic."""

import asyncio
import io
import sys
import tempfile

import aiosqlite
import alembic.command
import alembic.config
import kanban_vfs
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


with_peewee()
asyncio.run(with_aiosqlite())
with_alembic()
