"""Planned drills: what, where and when, who planned and who approved, and the messages it became.

`areas` and `audiences` are lists as JSON. `standing` is one of `gateway.store.drill.Stage`; that a drill is over, or
was stopped, stands with its alert. `series` is the id of the first of those that repeat.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

TABLES = """
CREATE TABLE drill (
  id TEXT PRIMARY KEY, series TEXT NOT NULL, issuer TEXT NOT NULL, kind TEXT NOT NULL, areas TEXT NOT NULL,
  audiences TEXT NOT NULL, starts_at BIGINT NOT NULL, ends_at BIGINT NOT NULL, notice_at BIGINT NOT NULL,
  document TEXT NOT NULL, event_code TEXT NOT NULL, event TEXT NOT NULL, level BIGINT NOT NULL, notice TEXT NOT NULL,
  rule TEXT NOT NULL, standing TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', planner TEXT NOT NULL,
  planner_role TEXT NOT NULL, approver TEXT NOT NULL DEFAULT '', approver_role TEXT NOT NULL DEFAULT '',
  alert TEXT NOT NULL DEFAULT '', announcement TEXT NOT NULL DEFAULT '', made_at BIGINT NOT NULL);
CREATE INDEX drill_starts ON drill (starts_at, id)
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("the training ledger is not taken back; restore a back-up instead")
