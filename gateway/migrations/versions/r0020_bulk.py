"""One row for a bulk submit instead of one for each of its recipients, and references that go when they have served.

`submits` has a line for each submit: batch, attempt, positions, and what tells its recipients apart in reports. That
was the end of `reference` before and is `number` now, so that reports of what was sent before the upgrade still match.
`kept_at` is when a row was last written, by a submit or by a report that waits for one.
"""

import time

from alembic import op

revision = "0020"
down_revision = "0019"

STATEMENTS = (
    "CREATE TABLE provider_bulk (account TEXT NOT NULL, reference TEXT NOT NULL, submits TEXT NOT NULL,"
    " kept_at BIGINT NOT NULL, PRIMARY KEY (account, reference))",
    "CREATE INDEX provider_bulk_kept ON provider_bulk (kept_at)",
    "CREATE INDEX provider_kept ON provider_ref (kept_at)",
    # "one/<id>/<tag of eleven>" and, where ids are counted, "one/<sixteen digits>"
    "UPDATE provider_ref SET number = substr(reference, length(reference) - 10),"
    " reference = substr(reference, 1, length(reference) - 12)"
    " WHERE account IN ('sms_cmpp', 'sms_sgip', 'sms_smgp') AND number = '' AND reference LIKE '%/%/___________'",
    "UPDATE provider_ref SET number = substr(reference, length(reference) - 1),"
    " reference = substr(reference, 1, length(reference) - 2)"
    " WHERE account = 'sms_cmpp' AND number = '' AND reference LIKE '%/________________'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    op.execute(f"UPDATE provider_ref SET kept_at = {time.time_ns() // 1000} WHERE kept_at IS NULL")


def downgrade() -> None:
    raise RuntimeError("reports of bulk submits would be lost; restore a back-up instead")
