"""Sequences whose numbers all processes share, and which number a message was given.

`last` is the last one taken; a `key` keeps the number it was first given.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

STATEMENTS = (
    "CREATE TABLE numbering (name TEXT PRIMARY KEY, last BIGINT NOT NULL)",
    "CREATE TABLE numbered (key TEXT PRIMARY KEY, sequence TEXT NOT NULL, number BIGINT NOT NULL)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("a number that is given twice is another message's; restore a back-up instead")
