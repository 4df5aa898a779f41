"""One person's history: batches by place and key range, confirmations by person, replies by number.

None of these indexes has a row per recipient: ten million receipts are ten thousand batches.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

INDEXES = (
    "CREATE INDEX batch_place ON batch (township, first_key, last_key)",
    "CREATE INDEX confirmation_person ON confirmation (person, at)",
    "CREATE INDEX reply_phone ON reply (phone_hash, at)",
)


def upgrade() -> None:
    for statement in INDEXES:
        op.execute(statement)


def downgrade() -> None:
    for name in ("batch_place", "confirmation_person", "reply_phone"):
        op.execute(f"DROP INDEX {name}")
