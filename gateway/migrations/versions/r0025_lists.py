"""Lists of a million: SQLite counts a new resident without keeping the pages it touches for an undoing.

The trigger of migration 0008 counts by an upsert, which may abort amid its work in SQLite's eyes. So each resident's
statement copied three pages into a journal of its own, a file once it had grown: half the time of writing a place.
Here the first place of a township makes the row and every one counts in it, the first one twice: the version is only
ever compared.
"""

from alembic import op

revision = "0025"
down_revision = "0024"

RESIDENT = "NEW.audience = 'residents'"
COUNTED = "roster_change WHERE township = NEW.township AND xid = 0"
TRIGGERS = (
    f"CREATE TRIGGER place_insert_first AFTER INSERT ON place WHEN {RESIDENT} AND NOT EXISTS (SELECT 1 FROM {COUNTED})"
    " BEGIN INSERT INTO roster_change VALUES (NEW.township, 0, 1); END",
    f"CREATE TRIGGER place_insert AFTER INSERT ON place WHEN {RESIDENT} BEGIN"
    " UPDATE roster_change SET changes = changes + 1 WHERE township = NEW.township AND xid = 0;"
    " DELETE FROM sealed_page WHERE township = NEW.township; END",
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER place_insert")
        for statement in TRIGGERS:
            op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("a trigger is not taken back; restore a back-up instead")
