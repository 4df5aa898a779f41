"""Carriers that are down, and which database this is: what the gateway knows of its own faults."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
CREATE TABLE outage (
  channel TEXT PRIMARY KEY, since BIGINT NOT NULL, until BIGINT NOT NULL, code TEXT NOT NULL);
CREATE TABLE installation (
  one BIGINT PRIMARY KEY, id TEXT NOT NULL, identity TEXT NOT NULL, restored_at BIGINT NOT NULL);
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("which database this is cannot be forgotten; restore a back-up instead")
