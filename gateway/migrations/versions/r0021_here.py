"""Since when a loudspeaker has been here, but for moments: one that comes and goes all the time is waited for once."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute("ALTER TABLE device_state ADD COLUMN here_since BIGINT")
    op.execute("UPDATE device_state SET here_since = since")


def downgrade() -> None:
    op.execute("ALTER TABLE device_state DROP COLUMN here_since")
