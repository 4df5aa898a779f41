"""The life of a warning: stages and who passed them, what the duty room owes, the emergency regime, sealed codes.

`minute.secret` is encrypted: it names who authorised by telephone, or who consulted with whom.
"""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
ALTER TABLE alert ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE alert ADD COLUMN status TEXT NOT NULL DEFAULT '';
ALTER TABLE alert ADD COLUMN document TEXT NOT NULL DEFAULT '';
ALTER TABLE alert ADD COLUMN level BIGINT NOT NULL DEFAULT 0;
ALTER TABLE alert ADD COLUMN event_code TEXT NOT NULL DEFAULT '';
ALTER TABLE alert ADD COLUMN likeness TEXT NOT NULL DEFAULT '';
CREATE INDEX alert_likeness ON alert (likeness, accepted_at) WHERE likeness <> '';
CREATE INDEX alert_sender ON alert (sender, accepted_at);
CREATE INDEX alert_drill ON alert (standing) WHERE status <> 'Actual';
UPDATE alert SET standing = 'sign' WHERE standing = 'held';
CREATE TABLE decision (
  alert TEXT NOT NULL, number BIGINT NOT NULL, standing TEXT NOT NULL, event TEXT NOT NULL, actor TEXT NOT NULL,
  at BIGINT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (alert, number));
CREATE TABLE obligation (
  alert TEXT NOT NULL, kind TEXT NOT NULL, due BIGINT NOT NULL, opened_at BIGINT NOT NULL,
  answered_at BIGINT, actor TEXT NOT NULL, answer TEXT NOT NULL, remark TEXT NOT NULL, PRIMARY KEY (alert, kind));
CREATE INDEX obligation_open ON obligation (due) WHERE answered_at IS NULL;
CREATE TABLE minute (
  alert TEXT NOT NULL, number BIGINT NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL, at BIGINT NOT NULL,
  secret BLOB NOT NULL, PRIMARY KEY (alert, number));
CREATE TABLE regime (
  id TEXT PRIMARY KEY, area TEXT NOT NULL, issuer TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
  started_at BIGINT NOT NULL, until BIGINT NOT NULL, renewed BIGINT NOT NULL, ended_at BIGINT, ended_by TEXT NOT NULL);
CREATE INDEX regime_open ON regime (area) WHERE ended_at IS NULL;
CREATE TABLE sealed_code (
  hash TEXT PRIMARY KEY, issuer TEXT NOT NULL, label TEXT NOT NULL, made_by TEXT NOT NULL, made_at BIGINT NOT NULL,
  used_at BIGINT, alert TEXT NOT NULL);
CREATE INDEX reference_by ON reference (alert);
"""


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    sql = TABLES.replace(" BLOB", " BYTEA") if postgresql else TABLES
    for statement in sql.split(";\n"):
        if statement.strip():
            op.execute(statement)
    _fill_alerts(op.get_bind())


def _fill_alerts(connection: sa.Connection) -> None:
    """Copy out of the packed messages what is asked for. By field name: the code's own types may change later."""
    after = ""
    while rows := connection.execute(
        sa.text("SELECT id, body FROM alert WHERE id > :after ORDER BY id LIMIT 500"), {"after": after}
    ).fetchall():
        for key, body in rows:
            alert = msgspec.msgpack.decode(body)
            connection.execute(
                sa.text(
                    "UPDATE alert SET status = :status, document = :document, level = :level, event_code = :event_code"
                    " WHERE id = :id"
                ),
                {name: alert[name] for name in ("status", "document", "level", "event_code")} | {"id": key},
            )
        after = rows[-1][0]


def downgrade() -> None:
    raise RuntimeError("decisions that were taken cannot be undone; restore a back-up instead")
