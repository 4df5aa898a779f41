"""Replies that a person has to look at, and officials who have heard but are not at post.

`id` names a reply without its number. `secret` is number and text, sealed; `text` is empty from now on. `people` are
those who may have written it, `places` the codes of their places and `alerts` what it answers, as JSON. `waiting` is 1
while a clerk has to settle it. An incident is a reply whose `incident` is 1; its obligation has the reply's id.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

TABLES = """
ALTER TABLE reply ADD COLUMN id TEXT NOT NULL DEFAULT '';
ALTER TABLE reply ADD COLUMN meaning TEXT NOT NULL DEFAULT '';
ALTER TABLE reply ADD COLUMN secret BLOB;
ALTER TABLE reply ADD COLUMN people TEXT NOT NULL DEFAULT '[]';
ALTER TABLE reply ADD COLUMN places TEXT NOT NULL DEFAULT '[]';
ALTER TABLE reply ADD COLUMN alerts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE reply ADD COLUMN waiting BIGINT NOT NULL DEFAULT 0;
ALTER TABLE reply ADD COLUMN incident BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX reply_id ON reply (id) WHERE id <> '';
CREATE INDEX reply_waiting ON reply (at) WHERE waiting = 1;
CREATE INDEX reply_incident ON reply (at) WHERE incident = 1;
CREATE TABLE away (
  alert TEXT NOT NULL, person BIGINT NOT NULL, at BIGINT NOT NULL, villages TEXT NOT NULL, how TEXT NOT NULL,
  PRIMARY KEY (alert, person));
"""


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    sql = TABLES.replace(" BLOB", " BYTEA") if postgresql else TABLES
    for statement in sql.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("what people have answered is not taken back; restore a back-up instead")
