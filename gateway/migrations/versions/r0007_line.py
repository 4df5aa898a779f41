"""Whose batches wait in the urgent lane, and the first of each: without a look at the others, however many."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX IF NOT EXISTS batch_line ON batch (lane, alert, not_before) WHERE unfinished > 0 AND lane = 1"
    )


def downgrade() -> None:
    op.execute("DROP INDEX batch_line")
