"""Connections of carrier accounts, and what reports tell of long texts and of numbers that moved to another carrier.

`whole` is the reference of a long text's first part, in the row of each of its parts; null where there is one part.
`kept_at` is when a report came whose submit was not known. The indexes hold nothing of an ordinary, matched row.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

STATEMENTS = (
    "CREATE TABLE lease (account TEXT NOT NULL, slot BIGINT NOT NULL, owner TEXT NOT NULL, until BIGINT NOT NULL,"
    " PRIMARY KEY (account, slot))",
    "ALTER TABLE provider_ref ADD COLUMN whole TEXT",
    "ALTER TABLE provider_ref ADD COLUMN elsewhere BIGINT",
    "ALTER TABLE provider_ref ADD COLUMN kept_at BIGINT",
    "CREATE INDEX provider_part ON provider_ref (account, whole) WHERE whole IS NOT NULL",
    "CREATE INDEX provider_unmatched ON provider_ref (kept_at) WHERE batch IS NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("reports of long texts would be lost; restore a back-up instead")
