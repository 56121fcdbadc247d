"""A site of SQLAlchemy, with the same answers as the one of Django. It begins its transactions with the statement BEGIN, by the
events that SQLAlchemy's documentation shows. Without BEGIN, Python's sqlite3 begins them, by default at their first write."""

import os

from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

BEGIN = os.environ.get("BEGIN")
engine = create_engine("sqlite:///" + os.environ["BOARD"])

if BEGIN:

    @event.listens_for(engine, "connect")
    def python_begins_nothing(connection, _):
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql(BEGIN)


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


def application(environ, start_response):
    with Session(engine) as session:
        if environ["PATH_INFO"] == "/write":
            session.get(Counter, 1).n += 1
            session.commit()
        else:
            session.query(Counter).filter(Counter.n >= 0).count()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
