"""One person's history: batches by place and key range, confirmations by person, replies by number.

None of these indexes has a row per recipient: ten million receipts are ten thousand batches. What does have one, facts
and references, is kept by SQLite in the order of its key alone, not in a table and an index beside it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

INDEXES = (
    "CREATE INDEX IF NOT EXISTS batch_place ON batch (township, first_key, last_key)",
    "CREATE INDEX IF NOT EXISTS confirmation_person ON confirmation (person, at)",
    "CREATE INDEX IF NOT EXISTS reply_phone ON reply (phone_hash, at)",
)
CLUSTERED = {
    "fact": "batch TEXT NOT NULL, position BIGINT NOT NULL, attempt BIGINT NOT NULL, state BIGINT NOT NULL,"
    " code TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (batch, position, attempt, state, code)",
    "provider_ref": "account TEXT NOT NULL, reference TEXT NOT NULL, number TEXT NOT NULL, batch TEXT, position BIGINT,"
    " attempt BIGINT, state BIGINT, code TEXT, at BIGINT, PRIMARY KEY (account, reference, number)",
}


def upgrade() -> None:
    for statement in INDEXES:
        op.execute(statement)
    if op.get_bind().dialect.name == "sqlite":
        for table, columns in CLUSTERED.items():
            op.execute("DROP TABLE IF EXISTS clustered")  # of an upgrade that was cut off
            op.execute(f"CREATE TABLE clustered ({columns}) WITHOUT ROWID")
            op.execute(f"INSERT INTO clustered SELECT * FROM {table}")
            op.execute(f"DROP TABLE {table}")
            op.execute(f"ALTER TABLE clustered RENAME TO {table}")


def downgrade() -> None:
    raise RuntimeError("the order of facts cannot be undone; restore a back-up instead")
