"""By which channel a loudspeaker is commanded.

Those that stand in the roster already connect by WebSocket, as all have so far.
"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute("ALTER TABLE device ADD COLUMN channel TEXT NOT NULL DEFAULT 'loudspeaker_ws'")


def downgrade() -> None:
    op.execute("ALTER TABLE device DROP COLUMN channel")
