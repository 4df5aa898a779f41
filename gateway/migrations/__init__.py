"""Schema migrations (alembic); `upgrade` is called when a database is opened and by `mingluo migrate`."""

from __future__ import annotations

import warnings
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

LOCK = 4_117_000  # advisory lock: one process migrates, the others wait


def upgrade(url: str, to: str = "head") -> None:
    """Bring the schema to a revision, the newest one by default; does nothing quickly when it already is."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    wanted = ScriptDirectory.from_config(config).as_revision_number(to)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
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
