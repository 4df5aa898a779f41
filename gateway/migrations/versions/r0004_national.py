"""National numbers: which number of the platform (国突) each public actual alert carries, "" while it is pending."""

import re

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TABLE = """
CREATE TABLE national (
  alert TEXT PRIMARY KEY, number TEXT NOT NULL, how TEXT NOT NULL, since BIGINT NOT NULL, matched_at BIGINT);
CREATE INDEX national_number ON national (number) WHERE number <> '';
CREATE INDEX alert_sent ON alert (sent);
"""
NUMBER = re.compile(r"[0-9]{14}_[0-9]{14}(_[0-9])?")


def upgrade() -> None:
    for statement in TABLE.split(";\n"):
        if statement.strip():
            op.execute(statement)
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    """Give the public alerts that went out before a row, without ringing for them."""
    after = ""
    while rows := connection.execute(
        sa.text(
            "SELECT id, identifier, accepted_at, body FROM alert WHERE id > :after AND status = 'Actual'"
            " AND standing IN ('active', 'stopped') ORDER BY id LIMIT 500"
        ),
        {"after": after},
    ).fetchall():
        for alert, identifier, at, body in rows:
            own = identifier if NUMBER.fullmatch(identifier) else ""
            if msgspec.msgpack.decode(body)["scope"] == "Public":
                connection.execute(
                    sa.text(
                        "INSERT INTO national (alert, number, how, since, matched_at)"
                        " VALUES (:alert, :number, :how, :at, :matched)"
                    ),
                    {
                        "alert": alert,
                        "number": own,
                        "how": "identifier" if own else "",
                        "at": at,
                        "matched": at if own else None,
                    },
                )
        after = rows[-1][0]


def downgrade() -> None:
    raise RuntimeError("numbers that were matched cannot be undone; restore a back-up instead")
