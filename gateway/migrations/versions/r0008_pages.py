"""Sealed pages: the residents of a township as a few rows, and what tells that they still stand.

`roster_change` counts the changes of each township's residents. On PostgreSQL every transaction counts in a row of its
own, so that an opt-out never waits for an import to end; the version of a township is the sum, which grows with every
change that is visible. Triggers do this, so that no way of writing can forget it.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

# A page reaches to (village, person); the last one of a township to ("~", 0). Keys compare bytewise, as in `place`.
SQLITE = (
    "CREATE TABLE sealed_page (township TEXT NOT NULL, village TEXT NOT NULL, person BIGINT NOT NULL,"
    " version BIGINT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (township, village, person))",
    "CREATE TABLE roster_change (township TEXT NOT NULL, xid BIGINT NOT NULL, changes BIGINT NOT NULL,"
    " PRIMARY KEY (township, xid)) WITHOUT ROWID",
)
NOTED = (
    "INSERT INTO roster_change SELECT {row}.township, 0, 1 WHERE {row}.audience = 'residents'"
    " ON CONFLICT (township, xid) DO UPDATE SET changes = changes + 1;"
    " DELETE FROM sealed_page WHERE township = {row}.township AND {row}.audience = 'residents';"
)
NOTED_OF_PERSON = (
    "INSERT INTO roster_change SELECT DISTINCT township, 0, 1 FROM place"
    " WHERE person = {row}.id AND audience = 'residents'"
    " ON CONFLICT (township, xid) DO UPDATE SET changes = changes + 1;"
    " DELETE FROM sealed_page WHERE township IN"
    " (SELECT township FROM place WHERE person = {row}.id AND audience = 'residents');"
)
EVENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "place": {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)},
    "person": {"UPDATE": ("OLD",), "DELETE": ("OLD",)},
}
"""Which rows count: as they were, as they are, or both. No page is made while a place has no person yet."""

POSTGRESQL = (
    'CREATE TABLE sealed_page (township TEXT COLLATE "C" NOT NULL, village TEXT COLLATE "C" NOT NULL,'
    " person BIGINT NOT NULL, version BIGINT NOT NULL, body BYTEA NOT NULL, PRIMARY KEY (township, village, person))",
    "ALTER TABLE sealed_page ALTER COLUMN body SET STORAGE EXTERNAL",  # nothing sealed can be compressed
    'CREATE TABLE roster_change (township TEXT COLLATE "C" NOT NULL, xid BIGINT NOT NULL, changes BIGINT NOT NULL,'
    " PRIMARY KEY (township, xid))",
)
# Pages that another transaction holds are passed over, for waiting could take as long as an import; if they stay, they
# are of an older version.
FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql{settings} AS $$
DECLARE
  townships TEXT[] := ARRAY(SELECT DISTINCT township FROM {changed} WHERE audience = 'residents' ORDER BY township);
BEGIN
  IF cardinality(townships) > 0 THEN
    INSERT INTO roster_change SELECT township, pg_current_xact_id()::text::bigint, 1 FROM unnest(townships) AS township
      ON CONFLICT (township, xid) DO UPDATE SET changes = roster_change.changes + 1;
    DELETE FROM sealed_page WHERE (township, village, person) IN (
      SELECT township, village, person FROM sealed_page WHERE township = ANY (townships) FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN NULL;
END $$"""
# The plan is made once, perhaps for an empty table: it must look each person up, however many there are by then.
BY_KEY = " SET enable_seqscan = off"
PLACES = "changed, LATERAL (SELECT township, audience FROM place WHERE person = changed.id OFFSET 0) AS place"
FUNCTIONS = {
    "place": FUNCTION.format(name="note_place", settings="", changed="changed"),
    "person": FUNCTION.format(name="note_person", settings=BY_KEY, changed=PLACES),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _postgresql()
    else:
        _sqlite()


def _sqlite() -> None:
    for statement in SQLITE:
        op.execute(statement)
    for table, noted in (("place", NOTED), ("person", NOTED_OF_PERSON)):
        for event, rows in EVENTS[table].items():
            body = " ".join(noted.format(row=row) for row in rows)
            op.execute(f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} BEGIN {body} END")


def _postgresql() -> None:
    for statement in POSTGRESQL:
        op.execute(statement)
    for table, function in FUNCTIONS.items():
        op.execute(function.replace(":", r"\:"))
        for event, rows in EVENTS[table].items():
            for row in rows:
                op.execute(
                    f"CREATE TRIGGER {table}_{event.lower()}_{row.lower()} AFTER {event} ON {table}"
                    f" REFERENCING {row} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_{table}()"
                )


def downgrade() -> None:
    raise RuntimeError("sealed pages are not taken back; restore a back-up instead")
