"""What can be told. Apart from ``events``, so that reading a configuration file imports next to nothing."""

from enum import IntEnum, StrEnum


class EventKind(StrEnum):
    """The first five: how a job run ended. ``REPOSITORY``: it is full, away or damaged, or well again. ``COVERAGE``: machines
    that were protected are not any more. ``TEST``: asked for by a person; every way takes it."""

    DONE = "done"
    ATTENTION = "attention"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    PROXY_GONE = "proxy-gone"
    REPOSITORY = "repository"
    COVERAGE = "coverage"
    TEST = "test"


class Gravity(IntEnum):
    """Severities of syslog (RFC 5424, table 2): smaller ones are graver."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6


GRAVITY = {
    EventKind.DONE: Gravity.INFO,
    EventKind.ATTENTION: Gravity.WARNING,
    EventKind.FAILED: Gravity.ERROR,
    EventKind.STOPPED: Gravity.WARNING,
    EventKind.SKIPPED: Gravity.WARNING,
    EventKind.PROXY_GONE: Gravity.ERROR,
    EventKind.REPOSITORY: Gravity.CRITICAL,
    EventKind.COVERAGE: Gravity.ERROR,
    EventKind.TEST: Gravity.INFO,
}
