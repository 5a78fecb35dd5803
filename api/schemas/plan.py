"""The hours to come: which machine's backup begins when, what has no place, what would help."""

from datetime import datetime

from api.schemas.common import Answer, Reason


class Silence(Answer):
    """``where``: a host or site that does not answer, so that nobody knows what it has."""

    where: str
    why: str


class MachineNamed(Answer):
    """A machine in a list that is about something else. ``id``: its identity."""

    id: str
    name: str
    host: str


class ComingRun(Answer):
    """A run of a job in these hours. ``begin`` is in the past when it is ``under_way`` (its id then). ``end``: of its window,
    null without one. ``machines``: that it backs up."""

    job: str
    begin: datetime
    end: datetime | None
    machines: int
    under_way: str | None


class PlannedBackup(Answer):
    """``expected_seconds``: how long it is presumed to take, by ``basis``: ``measured`` (itself), ``host`` (the pace of its
    host's others), ``assumed``. ``keys``: what it occupies; ``waited_for``: the one that it waits for last, empty for none.
    ``full``: all of it is read."""

    machine: str
    name: str
    job: str
    host: str
    begin: datetime
    end: datetime
    full: bool
    keys: list[str]
    expected_seconds: float
    basis: str
    based_on: str
    reasons: list[Reason]
    waited_for: str
    waited_seconds: float


class UnplannedBackup(Answer):
    """A machine without a place in these hours, and why."""

    machine: str
    name: str
    job: str
    host: str
    expected_seconds: float
    reason: Reason
    waited_for: str


class PlanEffect(Answer):
    """``unfit``: machines without a place; ``end``: when the last is done; ``waited``: seconds that machines wait for
    limits, all together; ``peak``: most at once on any one host, which is ``host``."""

    unfit: int
    end: datetime | None
    waited: float
    peak: int
    host: str


class HostLoad(Answer):
    """``at_once``: most backups at any time; ``busy``: how many on average in each of the plan's ``columns``."""

    host: str
    at_once: int
    busy: list[float]


class PlanProposal(Answer):
    """A change that would help, and with what effect. ``change``: ``start``, ``machine`` or ``limit``; ``what``: for
    people."""

    change: str
    what: str
    value: str
    job: str
    machine: str
    key: str
    after: PlanEffect


class Plan(Answer):
    """``at`` to ``until`` are the hours asked for; ``columns`` of equal length (to the end of the last backup) divide the
    time line of ``hosts``, the first beginning at ``at``. ``entries_left_out``, ``unfit_left_out``: how many more there are
    than asked for. ``in_no_job``: machines that no job means; ``unscheduled``: only jobs that never begin by themselves."""

    at: datetime
    until: datetime
    runs: list[ComingRun]
    entries: list[PlannedBackup]
    entries_left_out: int
    unfit: list[UnplannedBackup]
    unfit_left_out: int
    effect: PlanEffect
    line_until: datetime
    columns: int
    hosts: list[HostLoad]
    in_no_job: list[MachineNamed]
    unscheduled: list[MachineNamed]
    silent: list[Silence]
    notes: list[str]
    advice: list[PlanProposal] | None = None
