"""Since when a loudspeaker has been here, but for moments; and the process it was taken from by another.

A device that comes and goes all the time is waited for once. A process that still holds an older connection of a device
finds in `taken_from` that it is to part from it.
"""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.execute("ALTER TABLE device_state ADD COLUMN here_since BIGINT")
    op.execute("ALTER TABLE device_state ADD COLUMN taken_from TEXT NOT NULL DEFAULT ''")
    op.execute("UPDATE device_state SET here_since = since")
    op.execute("CREATE INDEX device_taken ON device_state (taken_from) WHERE taken_from <> ''")


def downgrade() -> None:
    op.execute("DROP INDEX device_taken")
    op.execute("ALTER TABLE device_state DROP COLUMN taken_from")
    op.execute("ALTER TABLE device_state DROP COLUMN here_since")
