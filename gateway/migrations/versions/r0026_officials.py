"""Sealed pages of officials beside those of residents: each roster of a township has pages and a version of its own.

Pages are a cache and are dropped; the versions start anew, so that whoever makes pages ahead knows every township.
"""

from alembic import op

from gateway.migrations.versions.r0008_pages import BY_KEY, PLACES

revision = "0026"
down_revision = "0025"

SEALED = "('officials', 'residents')"
TABLES = (
    "CREATE TABLE sealed_page (township {key} NOT NULL, audience {key} NOT NULL, village {key} NOT NULL,"
    " person BIGINT NOT NULL, version BIGINT NOT NULL, body {bytes} NOT NULL,"
    " PRIMARY KEY (township, audience, village, person))",
    "CREATE TABLE roster_change (township {key} NOT NULL, audience {key} NOT NULL, xid BIGINT NOT NULL,"
    " changes BIGINT NOT NULL, PRIMARY KEY (township, audience, xid)){without}",
    "INSERT INTO roster_change SELECT township, audience, 0, COUNT(*) FROM place WHERE audience IN " + SEALED
    + " GROUP BY township, audience",
)  # fmt: skip

OWN = "township = NEW.township AND audience = NEW.audience AND xid = 0"
PLACED = f"place WHERE person = OLD.id AND audience IN {SEALED}"
NOTED = (
    f"INSERT INTO roster_change SELECT {{row}}.township, {{row}}.audience, 0, 1 WHERE {{row}}.audience IN {SEALED}"
    " ON CONFLICT (township, audience, xid) DO UPDATE SET changes = changes + 1;"
    " DELETE FROM sealed_page WHERE township = {row}.township AND audience = {row}.audience;"
)
NOTED_OF_PERSON = (
    f"INSERT INTO roster_change SELECT DISTINCT township, audience, 0, 1 FROM {PLACED}"
    " ON CONFLICT (township, audience, xid) DO UPDATE SET changes = changes + 1;"
    f" DELETE FROM sealed_page WHERE (township, audience) IN (SELECT township, audience FROM {PLACED});"
)
TRIGGERS = (  # a new place counts without an upsert: see migration 0025
    f"CREATE TRIGGER place_insert_first AFTER INSERT ON place WHEN NEW.audience IN {SEALED}"
    f" AND NOT EXISTS (SELECT 1 FROM roster_change WHERE {OWN})"
    " BEGIN INSERT INTO roster_change VALUES (NEW.township, NEW.audience, 0, 1); END",
    f"CREATE TRIGGER place_insert AFTER INSERT ON place WHEN NEW.audience IN {SEALED} BEGIN"
    f" UPDATE roster_change SET changes = changes + 1 WHERE {OWN};"
    " DELETE FROM sealed_page WHERE township = NEW.township AND audience = NEW.audience; END",
    f"CREATE TRIGGER place_update AFTER UPDATE ON place BEGIN {NOTED.format(row='OLD')} {NOTED.format(row='NEW')} END",
    f"CREATE TRIGGER place_delete AFTER DELETE ON place BEGIN {NOTED.format(row='OLD')} END",
    f"CREATE TRIGGER person_update AFTER UPDATE ON person BEGIN {NOTED_OF_PERSON} END",
    f"CREATE TRIGGER person_delete AFTER DELETE ON person BEGIN {NOTED_OF_PERSON} END",
)

FUNCTION = f"""
CREATE OR REPLACE FUNCTION note_{{table}}() RETURNS trigger LANGUAGE plpgsql{{settings}} AS $$
DECLARE
  townships TEXT[];
  audiences TEXT[];
BEGIN
  SELECT array_agg(township), array_agg(audience) INTO townships, audiences FROM (
    SELECT DISTINCT township, audience FROM {{changed}} WHERE audience IN {SEALED} ORDER BY 1, 2) AS noted;
  IF cardinality(townships) > 0 THEN
    INSERT INTO roster_change SELECT township, audience, pg_current_xact_id()::text::bigint, 1
      FROM unnest(townships, audiences) AS noted (township, audience)
      ON CONFLICT (township, audience, xid) DO UPDATE SET changes = roster_change.changes + 1;
    DELETE FROM sealed_page WHERE (township, audience, village, person) IN (
      SELECT s.township, s.audience, s.village, s.person FROM unnest(townships, audiences) AS noted (township, audience)
      JOIN sealed_page s ON s.township = noted.township AND s.audience = noted.audience FOR UPDATE OF s SKIP LOCKED);
  END IF;
  RETURN NULL;
END $$"""
FUNCTIONS = (
    FUNCTION.format(table="place", settings="", changed="changed"),
    FUNCTION.format(table="person", settings=BY_KEY, changed=PLACES),
)


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    types = (
        {"key": 'TEXT COLLATE "C"', "bytes": "BYTEA", "without": ""}
        if postgresql
        else {"key": "TEXT", "bytes": "BLOB", "without": " WITHOUT ROWID"}
    )
    if not postgresql:  # they name the tables
        for trigger in ("place_insert_first", "place_insert", "place_update", "place_delete"):
            op.execute(f"DROP TRIGGER {trigger}")
        for trigger in ("person_update", "person_delete"):
            op.execute(f"DROP TRIGGER {trigger}")
    for table in ("sealed_page", "roster_change"):
        op.execute(f"DROP TABLE {table}")
    for statement in TABLES:
        op.execute(statement.format(**types))
    if postgresql:
        op.execute("ALTER TABLE sealed_page ALTER COLUMN body SET STORAGE EXTERNAL")
    for statement in FUNCTIONS if postgresql else TRIGGERS:
        op.execute(statement.replace(":", r"\:"))


def downgrade() -> None:
    raise RuntimeError("sealed pages are not taken back; restore a back-up instead")
