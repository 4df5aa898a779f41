"""What devices do too often is counted, and what is old and settled is found to be removed.

`device_noted` holds when a device's doing of a kind last entered the audit chain, and how often it came since.
"""

from alembic import op

revision = "0021"
down_revision = "0020"

STATEMENTS = (
    "CREATE TABLE device_noted (device TEXT NOT NULL, kind TEXT NOT NULL, at BIGINT NOT NULL, more BIGINT NOT NULL,"
    " PRIMARY KEY (device, kind))",
    "CREATE INDEX device_noted_more ON device_noted (at) WHERE more > 0",
    "CREATE INDEX device_order_settled ON device_order (settled_at) WHERE settled_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("an older gateway cannot read a newer database; restore a back-up instead")
