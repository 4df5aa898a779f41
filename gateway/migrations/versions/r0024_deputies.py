"""Who is told where an official is away.

`person.deputy` is the keyed hash of the deputy's number. An `away` row names the deputy that was told (0: nobody), and
the place its message stands under.
"""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    binary = "BYTEA" if op.get_bind().dialect.name == "postgresql" else "BLOB"
    op.execute(f"ALTER TABLE person ADD COLUMN deputy {binary}")
    op.execute("CREATE INDEX person_deputy ON person (deputy) WHERE deputy IS NOT NULL")
    op.execute("ALTER TABLE away ADD COLUMN deputy BIGINT NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE away ADD COLUMN township TEXT NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE away ADD COLUMN village TEXT NOT NULL DEFAULT ''")
    op.execute("CREATE INDEX away_deputy ON away (deputy) WHERE deputy <> 0")


def downgrade() -> None:
    raise RuntimeError("deputies would be lost; restore a back-up instead")
