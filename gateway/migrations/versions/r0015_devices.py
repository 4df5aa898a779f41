"""What is known of each loudspeaker, what single ones are ordered to do, and the alarms villages have sounded.

`device_state` has a row per device that was ever heard of; `holder` is the process that holds its connection. `seen_at`
is when it last said anything, `since` when it came or went, `told_at` when it last told its condition; `skew_ms` is its
clock minus ours, `faults` a list as JSON. `volume_policy` names the volume policy it was last ordered to keep.
An id of
`device_order` is that of the request, which may be for many devices, and a number; `state` is open, done, failed,
expired or superseded. `village_alarm` is named by device and the device's own number of it; its obligation has its id.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

TABLES = """
CREATE TABLE device_state (
  device ROW_KEY PRIMARY KEY, online BIGINT NOT NULL, holder TEXT NOT NULL, seen_at BIGINT NOT NULL,
  since BIGINT NOT NULL, firmware TEXT NOT NULL DEFAULT '', volume BIGINT, power TEXT NOT NULL DEFAULT '',
  battery BIGINT, skew_ms BIGINT, faults TEXT, told_at BIGINT, drilled_at BIGINT, tested_at BIGINT, played_at BIGINT,
  volume_policy TEXT NOT NULL DEFAULT '');
INSERT INTO device_state (device, online, holder, seen_at, since)
  SELECT id, 0, '', seen_at, seen_at FROM device WHERE seen_at IS NOT NULL;
ALTER TABLE device DROP COLUMN online;
ALTER TABLE device DROP COLUMN seen_at;
CREATE TABLE device_order (
  id TEXT PRIMARY KEY, device BIGINT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, actor TEXT NOT NULL,
  at BIGINT NOT NULL, expires BIGINT NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, settled_at BIGINT);
CREATE INDEX device_order_open ON device_order (device) WHERE state = 'open';
CREATE INDEX device_order_device ON device_order (device, at);
CREATE TABLE village_alarm (
  id TEXT PRIMARY KEY, device BIGINT NOT NULL, code TEXT NOT NULL, village TEXT NOT NULL, at BIGINT NOT NULL,
  UNIQUE (device, code));
CREATE INDEX village_alarm_at ON village_alarm (at);
"""


def upgrade() -> None:
    # SQLite keeps rows in the order of an INTEGER key, and needs no second index for it.
    row_key = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    for statement in TABLES.replace("ROW_KEY", row_key).split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("what devices have told is not taken back; restore a back-up instead")
