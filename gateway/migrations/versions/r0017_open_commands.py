"""What a hub asks for four times a second: batches with plays that may still be wanted, and stops that wait.

Both indexes hold what is open alone, by its deadline, so that what devices never reported on costs nothing later. The
one by device goes: nobody asks any more what each of thousands of devices has open.
"""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.execute("DROP INDEX device_command_open")
    op.execute("CREATE INDEX batch_commanded ON batch (deadline) WHERE slice_size = 0 AND settled_at IS NULL")
    op.execute(
        "CREATE INDEX device_command_ends ON device_command (deadline) WHERE finished = 0 AND want IN ('hush', 'stop')"
    )


def downgrade() -> None:
    raise RuntimeError("an older gateway cannot read a newer database; restore a back-up instead")
