"""When a request for a place was last asked: what is said again is due from then on."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute("ALTER TABLE progress ADD COLUMN asked_at BIGINT NOT NULL DEFAULT 0")
    op.execute("UPDATE progress SET asked_at = since")


def downgrade() -> None:
    op.execute("ALTER TABLE progress DROP COLUMN asked_at")
