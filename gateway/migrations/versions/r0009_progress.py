"""Requests for places and how far each has come: aggregate receipts, counts of telephones and never of persons."""

from alembic import op

revision = "0009"
down_revision = "0008"

# `state` is the rank of `gateway.model.JobState`; `since` is when something last moved; `looked_at` when a process
# last took it to ask the platform. Times in µs.
SQL = (
    "CREATE TABLE progress (batch TEXT NOT NULL, source TEXT NOT NULL, channel TEXT NOT NULL, job TEXT NOT NULL,"
    " state BIGINT NOT NULL, requested BIGINT NOT NULL, submitted BIGINT NOT NULL, delivered BIGINT NOT NULL,"
    " ended BIGINT NOT NULL, since BIGINT NOT NULL, looked_at BIGINT NOT NULL, PRIMARY KEY (batch, source))",
    "CREATE INDEX progress_open ON progress (channel, looked_at) WHERE ended = 0",
)


def upgrade() -> None:
    for statement in SQL:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE progress")
