"""What the API needs: an index to list alerts by, answers kept under an Idempotency-Key, the head of the audit chain.

`alert_listing` covers every filter, so that a list reads the index and not the messages. `alert_county` holds the
counties a message touches, "" while its area is unknown. `audit_head` says where the chain stands: a chain whose last
records were cut off is otherwise whole.
"""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
CREATE INDEX alert_listing ON alert (accepted_at, id, standing, status, document, level, event_code, sender);
CREATE TABLE alert_county (alert TEXT NOT NULL, county TEXT NOT NULL, PRIMARY KEY (alert, county));
CREATE TABLE idempotency (
  key TEXT PRIMARY KEY, digest TEXT NOT NULL, owner TEXT NOT NULL, at BIGINT NOT NULL, status BIGINT, body BLOB);
CREATE INDEX idempotency_at ON idempotency (at);
CREATE TABLE audit_head (one BIGINT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL);
"""
GENESIS = "0" * 64
PAGE = 500


def upgrade() -> None:
    connection = op.get_bind()
    sql = TABLES.replace(" BLOB", " BYTEA") if connection.dialect.name == "postgresql" else TABLES
    for statement in sql.split(";\n"):
        if statement.strip():
            op.execute(statement)
    _fill_counties(connection)
    last = connection.execute(sa.text("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")).first()
    seq, found = (last[0], last[1]) if last else (0, GENESIS)
    connection.execute(
        sa.text("INSERT INTO audit_head (one, seq, hash) VALUES (1, :seq, :hash)"), {"seq": seq, "hash": found}
    )


def _fill_counties(connection: sa.Connection) -> None:
    """Copy out of the packed plans which counties they touch. By field name: the code's own types may change later."""
    after = ""
    while rows := connection.execute(
        sa.text("SELECT id, plan FROM alert WHERE id > :after ORDER BY id LIMIT :page"), {"after": after, "page": PAGE}
    ).fetchall():
        for key, packed in rows:
            plan = msgspec.msgpack.decode(packed)
            targets = (*plan.get("targets", ()), *plan.get("leaving", ()))
            counties = {target["township"][:6] for target in targets} or {""}
            connection.execute(
                sa.text("INSERT INTO alert_county (alert, county) VALUES (:alert, :county)"),
                [{"alert": key, "county": county} for county in sorted(counties)],
            )
        after = rows[-1][0]


def downgrade() -> None:
    for statement in (
        "DROP TABLE audit_head", "DROP TABLE idempotency", "DROP TABLE alert_county", "DROP INDEX alert_listing",
    ):  # fmt: skip
        op.execute(statement)
