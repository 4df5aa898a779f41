"""The foundation: alerts, plans, outbox, claims, ledger, audit, timers, people and devices.

Times are microseconds since the epoch, UTC. Names and addresses stand in `person.secret` (encrypted)
and, until the alert has ended, in `outbox.body`; everything else holds opaque person ids.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE alert (
  id TEXT PRIMARY KEY, sender TEXT NOT NULL, identifier TEXT NOT NULL, sent BIGINT NOT NULL,
  content_digest TEXT NOT NULL, body BLOB NOT NULL, plan BLOB NOT NULL,
  standing TEXT NOT NULL, reason TEXT NOT NULL, issuer TEXT NOT NULL,
  accepted_at BIGINT NOT NULL, expires BIGINT NOT NULL, ended_at BIGINT,
  UNIQUE (sender, identifier));
CREATE INDEX alert_standing ON alert (standing, accepted_at);
CREATE TABLE reference (sender TEXT NOT NULL, identifier TEXT NOT NULL, alert TEXT NOT NULL,
  PRIMARY KEY (sender, identifier, alert));
CREATE TABLE step (
  alert TEXT NOT NULL, number BIGINT NOT NULL, lane BIGINT NOT NULL, start BIGINT NOT NULL,
  finished BIGINT NOT NULL, sequence BIGINT NOT NULL,
  township TEXT NOT NULL, village TEXT NOT NULL, person BIGINT NOT NULL,
  PRIMARY KEY (alert, number));
CREATE INDEX step_open ON step (lane, start) WHERE finished = 0;
CREATE TABLE batch (
  id TEXT PRIMARY KEY, alert TEXT NOT NULL, step BIGINT NOT NULL, channel TEXT NOT NULL,
  lane BIGINT NOT NULL, audience TEXT NOT NULL, notice TEXT NOT NULL,
  township TEXT NOT NULL, county TEXT NOT NULL, size BIGINT NOT NULL, slice_size BIGINT NOT NULL,
  first_key TEXT NOT NULL, last_key TEXT NOT NULL, deadline BIGINT NOT NULL,
  unfinished BIGINT NOT NULL, not_before BIGINT NOT NULL, published_at BIGINT NOT NULL,
  states BLOB NOT NULL, counts TEXT NOT NULL,
  created_at BIGINT NOT NULL, submitted_at BIGINT, settled_at BIGINT, sealed BIGINT NOT NULL DEFAULT 0);
CREATE INDEX batch_unsealed ON batch (settled_at) WHERE sealed = 0 AND settled_at IS NOT NULL;
CREATE INDEX batch_unfinished ON batch (lane, not_before) WHERE unfinished > 0;
CREATE INDEX batch_alert ON batch (alert, township, audience);
CREATE TABLE outbox (batch TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE claim (
  batch TEXT NOT NULL, slice BIGINT NOT NULL, owner TEXT NOT NULL, lease_until BIGINT NOT NULL,
  attempt BIGINT NOT NULL, retry_at BIGINT NOT NULL, done BIGINT NOT NULL, pending BLOB,
  PRIMARY KEY (batch, slice));
CREATE TABLE outcome (
  batch TEXT NOT NULL, slice BIGINT NOT NULL, attempt BIGINT NOT NULL, account TEXT NOT NULL,
  at BIGINT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (batch, slice, attempt, at));
CREATE TABLE fact (
  batch TEXT NOT NULL, position BIGINT NOT NULL, attempt BIGINT NOT NULL, state BIGINT NOT NULL,
  code TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (batch, position, attempt, state, code));
CREATE TABLE provider_ref (
  account TEXT NOT NULL, reference TEXT NOT NULL, number TEXT NOT NULL, batch TEXT, position BIGINT,
  attempt BIGINT, state BIGINT, code TEXT, at BIGINT, PRIMARY KEY (account, reference, number));
CREATE TABLE device_command (
  alert TEXT NOT NULL, device BIGINT NOT NULL, batch TEXT NOT NULL, position BIGINT NOT NULL,
  want TEXT NOT NULL, finished BIGINT NOT NULL, deadline BIGINT NOT NULL, PRIMARY KEY (device, alert, batch));
CREATE INDEX device_command_open ON device_command (device) WHERE finished = 0;
CREATE INDEX device_command_alert ON device_command (alert);
CREATE INDEX device_command_batch ON device_command (batch, position);
CREATE TABLE confirmation (
  alert TEXT NOT NULL, person BIGINT NOT NULL, at BIGINT NOT NULL, how TEXT NOT NULL, villages TEXT NOT NULL,
  PRIMARY KEY (alert, person));
CREATE TABLE reply (
  account TEXT NOT NULL, reference TEXT NOT NULL, channel TEXT NOT NULL, phone_hash BLOB NOT NULL,
  text TEXT NOT NULL, at BIGINT NOT NULL, outcome TEXT NOT NULL, PRIMARY KEY (account, reference));
CREATE TABLE change (seq SERIAL_KEY, xid BIGINT DEFAULT_XID, kind TEXT NOT NULL, alert TEXT NOT NULL,
  subject TEXT NOT NULL);
CREATE TABLE audit (
  seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
  detail TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE timer (kind TEXT NOT NULL, name TEXT NOT NULL, due BIGINT NOT NULL, PRIMARY KEY (kind, name));
CREATE INDEX timer_due ON timer (due);
CREATE TABLE policy (digest TEXT PRIMARY KEY, body BLOB NOT NULL, at BIGINT NOT NULL);
CREATE TABLE halt (scope TEXT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL);
CREATE TABLE live (channel TEXT PRIMARY KEY, requested_by TEXT NOT NULL, approved_by TEXT NOT NULL,
  at BIGINT NOT NULL);
CREATE TABLE person (
  id ROW_KEY PRIMARY KEY, kind TEXT NOT NULL, secret BLOB NOT NULL, phone_hash BLOB NOT NULL, language TEXT NOT NULL,
  county TEXT NOT NULL, opted_out BIGINT NOT NULL, needs_helper BIGINT NOT NULL, basis TEXT NOT NULL,
  several BIGINT NOT NULL, standing TEXT NOT NULL, updated_at BIGINT NOT NULL);
CREATE INDEX person_phone ON person (phone_hash);
CREATE TABLE place (
  township TEXT NOT NULL, audience TEXT NOT NULL, village TEXT NOT NULL, person BIGINT NOT NULL,
  role TEXT NOT NULL, since BIGINT NOT NULL, until BIGINT,
  PRIMARY KEY (township, audience, village, person, role)) CLUSTERED;
CREATE INDEX place_person ON place (person);
CREATE TABLE device (
  id ROW_KEY PRIMARY KEY, name TEXT NOT NULL UNIQUE, village TEXT NOT NULL, township TEXT NOT NULL,
  county TEXT NOT NULL, key_hash TEXT NOT NULL, standing TEXT NOT NULL, online BIGINT NOT NULL, seen_at BIGINT);
CREATE INDEX device_township ON device (township, village, id);
"""


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    words = (
        {
            "SERIAL_KEY": "BIGSERIAL PRIMARY KEY",
            "DEFAULT_XID": "NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)",
            " BLOB": " BYTEA",
            "ROW_KEY": "BIGINT",
            " CLUSTERED": "",
        }
        if postgresql
        # SQLite keeps rows in the order of an INTEGER key; pages of an audience then read neighbouring rows.
        else {
            "SERIAL_KEY": "INTEGER PRIMARY KEY AUTOINCREMENT",
            "DEFAULT_XID": "NOT NULL DEFAULT 0",
            "ROW_KEY": "INTEGER",
            " CLUSTERED": " WITHOUT ROWID",
        }
    )
    sql = TABLES
    for word, meaning in words.items():
        sql = sql.replace(word, meaning)
    for statement in sql.split(";\n"):
        if statement.strip():
            op.execute(statement.replace(":", r"\:"))
    if postgresql:
        # A feed reader asks for what is behind (xid, seq) and older than every running transaction.
        op.execute("CREATE INDEX change_order ON change (xid, seq)")
        # TEXT keys compare bytewise, so that ranges of batch keys mean the same in both databases.
        op.execute('ALTER TABLE batch ALTER COLUMN first_key TYPE TEXT COLLATE "C"')
        op.execute('ALTER TABLE batch ALTER COLUMN last_key TYPE TEXT COLLATE "C"')
        op.execute('ALTER TABLE place ALTER COLUMN township TYPE TEXT COLLATE "C"')
        op.execute('ALTER TABLE place ALTER COLUMN village TYPE TEXT COLLATE "C"')


def downgrade() -> None:
    raise RuntimeError("the foundation cannot be undone; restore a back-up instead")
