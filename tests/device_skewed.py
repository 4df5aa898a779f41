"""The command line on a machine whose clock is a day ahead, as far as the device's code asks it."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

from gateway.cli import main
from gateway.device import program


class Ahead(datetime):
    """A wall clock without a battery."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime will do
        """Tomorrow."""
        return datetime.now(tz) + timedelta(days=1)


if __name__ == "__main__":
    vars(program)["datetime"] = Ahead  # there is no other way to be wrong by a day
    main()
