"""Schema migrations (alembic); `upgrade` is called when a database is opened and by `mingluo migrate`."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import NullPool

LOCK = 4_117_000  # advisory lock: one process migrates, the others wait


def upgrade(url: str, to: str = "head") -> None:
    """Bring the schema to a revision, the newest one by default; does nothing quickly when it already is.

    All steps are one transaction: after a power cut the schema is the old one or the new one, never between.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    wanted = ScriptDirectory.from_config(config).as_revision_number(to)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        _begin_at_the_beginning(engine)
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
            connection.commit()
        if MigrationContext.configure(connection).get_current_revision() != wanted:
            config.attributes["connection"] = connection
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                command.upgrade(config, to)
            connection.commit()
    engine.dispose()


def _begin_at_the_beginning(engine: Engine) -> None:
    """Let SQLite's transactions begin where SQLAlchemy's do; by itself the driver begins none for CREATE or ALTER."""

    @event.listens_for(engine, "connect")
    def by_hand(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")
