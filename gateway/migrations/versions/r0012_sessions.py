"""Channels that have a connection somewhere, and batches whose reports are still awaited.

`session` says until when some process is known to have a connection. Batches of before are not awaited.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

STATEMENTS = (
    "CREATE TABLE session (channel TEXT PRIMARY KEY, until BIGINT NOT NULL)",
    "ALTER TABLE batch ADD COLUMN awaited BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX batch_awaited ON batch (channel, settled_at) WHERE awaited = 1 AND settled_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("what is awaited cannot be found again; restore a back-up instead")
