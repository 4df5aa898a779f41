"""What is known of a person's carrier beyond the number; see `gateway.carrier.Known`.

It changes where a text goes, so the triggers of migration 0008 count a change of it as of anything else of a person.
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("ALTER TABLE person ADD COLUMN carrier TEXT NOT NULL DEFAULT ''")


def downgrade() -> None:
    raise RuntimeError("what is known of carriers is not taken back; restore a back-up instead")
