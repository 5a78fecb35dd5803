"""The dashboard: what needs a person, how well all is protected, what happened last night, what goes on, what comes."""

from datetime import date, datetime

from api.schemas.common import Answer


class AttentionLine(Answer):
    """Gravest first. ``text`` is one sentence; ``link``: the resource that it is about (``jobs/nightly``, ``job-runs/ID``,
    ``proxies``), may be empty."""

    text: str
    link: str = ""


class ProtectionCount(Answer):
    """``status``: as in the list of machines."""

    status: str
    machines: int


class RunningNow(Answer):
    """``share``: from 0 to 1, null while nobody knows. ``job``: empty for what a person asked for."""

    task: str
    run: str
    job: str
    kind: str
    name: str
    host: str
    proxy: str
    since: datetime | None
    attempt: int
    full: bool
    done_bytes: int
    total_bytes: int
    share: float | None
    bytes_per_second: float | None


class WaitingFor(Answer):
    """``key``: a limit that is full (``host:kvm1``), or ``job:NAME``; ``tasks``: that wait for it."""

    key: str
    tasks: int


class WaitingNow(Answer):
    """``total`` tasks wait; ``again``: for another attempt, the next at ``next``; ``free``: for nothing but a proxy's free
    slot."""

    total: int
    held_up: list[WaitingFor]
    again: int
    next: datetime | None
    free: int


class NextRun(Answer):
    """``opens``: when its window lets it begin, if that is later than ``at``."""

    job: str
    zone: str
    at: datetime
    opens: datetime | None


class RunBar(Answer):
    """A job run on a time line. ``end``: null while it goes on. ``machines``: its tasks, pruning and the like among them."""

    run: str
    job: str
    state: str
    cause: str
    begin: datetime
    end: datetime | None
    machines: int
    failed: int


class MachineBar(Answer):
    """A machine's backup on a time line."""

    task: str
    run: str
    job: str
    machine: str
    name: str
    host: str
    state: str
    begin: datetime
    end: datetime | None
    bytes_read: int | None
    error: str | None


class Night(Answer):
    """``machines_left_out``: how many more backups there were than are drawn: the longest and the failed ones are."""

    begin: datetime
    end: datetime
    runs: list[RunBar]
    machines: list[MachineBar]
    machines_left_out: int


class DayFigures(Answer):
    """What backups that ended on this day (UTC) moved. ``dedup``: bytes read for each one that was new (1.0: nothing was
    known already), ``packed``: new bytes for each one stored (compression); null where nothing was read. ``seconds``: of
    backups, all together."""

    day: date
    done: int
    failed: int
    stopped: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    seconds: float
    dedup: float | None
    packed: float | None


class SuccessRate(Answer):
    """Backups that ended in the newest ``days`` days: ``share`` of them well, null for none."""

    days: int
    done: int
    ended: int
    share: float | None


class Overview(Answer):
    """``days``: oldest first, without gaps. ``protection``: null where nobody has looked at the machines yet."""

    at: datetime
    attention: list[AttentionLine]
    protection: list[ProtectionCount] | None
    running: list[RunningNow]
    waiting: WaitingNow
    next: list[NextRun]
    jobs: int
    proxies_alive: int
    proxies_silent: int
    night: Night
    days: list[DayFigures]
    success: list[SuccessRate]
