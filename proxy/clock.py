"""The machine's clock: the adapter of the ``Clock`` port that is used wherever a test does not need another."""

from datetime import UTC, datetime


class SystemClock:
    """Wall clock of this machine, UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)
