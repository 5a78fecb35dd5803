"""What a job is: a policy, as it is stored, shown, and written to and read from YAML. Pure values; unknown keys are refused.

Times of day are those of ``zone``. A window that ends before it begins goes over midnight and belongs to the day on which it
begins.
"""

from datetime import date, time, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from proxy.model import QuiescePolicy


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not found is a KeyError; "" and directories are the others
        raise ValueError(f"unknown time zone {name!r}") from None
    return name


Zone = Annotated[str, AfterValidator(_known_zone)]
"""IANA name of a time zone."""


MOST = 1000
"""Rules, windows, blackouts of a job. People write some; each machine is held against each rule, whoever only looks at a
preview."""

LATEST = date(2199, 12, 31)
"""Of a blackout: whoever looks for the next open window looks at each day of it."""


class Weekday(StrEnum):
    """ISO order, from Monday."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


EVERY_DAY = tuple(Weekday)


def weekdays(said: object) -> object:
    """``mon-fri,sun`` as days, over the end of the week, too (``fri-mon``); what is no text is left as it is. Raises
    ``ValueError``."""
    if not isinstance(said, str):
        return said
    found: list[Weekday] = []
    for part in filter(None, (part.strip().lower() for part in said.split(","))):
        first, dash, last = part.partition("-")
        try:
            begin, end = (EVERY_DAY.index(Weekday(word.strip())) for word in (first, last if dash else first))
        except ValueError:
            raise ValueError(f"{part!r} is no day: {', '.join(EVERY_DAY)}, or as mon-fri") from None
        span = range(begin, end + 1 if end >= begin else end + 1 + len(EVERY_DAY))
        found += [EVERY_DAY[n % len(EVERY_DAY)] for n in span]
    return tuple(dict.fromkeys(found))


Days = Annotated[
    tuple[Weekday, ...],
    BeforeValidator(weekdays, json_schema_input_type=str | tuple[Weekday, ...]),
    Field(max_length=7),
]
"""Also read from a text like ``mon-fri,sun``."""


def _one(said: object) -> object:
    """A text where a list is expected is a list of one."""
    return (said,) if isinstance(said, str) else said


def _no_number(said: object) -> object:
    """A number would be taken for seconds since midnight, which nobody means. Raises ``ValueError``."""
    if isinstance(said, int | float):
        raise ValueError(f"{said} is no time of day; write it as 22:00")
    return said


Texts = Annotated[
    tuple[str, ...], BeforeValidator(_one, json_schema_input_type=str | tuple[str, ...]), Field(max_length=MOST)
]
"""Also read from a single text."""

TimeOfDay = Annotated[time, BeforeValidator(_no_number)]


class Selection(_Part):
    """Which machines. Rules as ``lanfree backup --select`` takes them (``name=web-*``, ``folder=Prod, tag=backup:gold``,
    ``machine=IDENTITY``, ``host=kvm1``; an empty text is every machine): those that fit any of ``include`` and none of
    ``exclude``, resolved when the job runs. ``exclude_disks``: ``pattern-of-name:disk`` (``db-*:vdc``)."""

    include: Texts = ()
    exclude: Texts = ()
    exclude_disks: Texts = ()


class Schedule(_Part):
    """When: a ``cron`` line of five fields, or times of day ``at`` on ``days``. ``missed``: what to do when its time passed
    unnoticed (proxy off, or the previous run still going on): ``run`` once as soon as the window allows, or ``skip``."""

    cron: str | None = None
    at: Annotated[
        tuple[TimeOfDay, ...],
        BeforeValidator(_one, json_schema_input_type=str | tuple[TimeOfDay, ...]),
        Field(max_length=1440),
    ] = ()
    days: Days = EVERY_DAY
    missed: Literal["run", "skip"] = "run"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.cron is None) == (not self.at):
            raise ValueError("a schedule has either a cron line or times of day in at")
        if not self.days:
            raise ValueError("a schedule needs at least one day")
        return self


class Window(_Part):
    """When tasks may run: from ``start`` to ``end`` (equal: all day) on ``days``. Also read from a text: ``22:00-06:00``,
    ``sat,sun 08:00-20:00``."""

    start: TimeOfDay
    end: TimeOfDay
    days: Days = EVERY_DAY

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, said: object) -> object:
        if not isinstance(said, str):
            return said
        days, _, hours = said.strip().rpartition(" ")
        start, dash, end = hours.partition("-")
        if not (start and dash and end):
            raise ValueError(f"{said!r} is not of the form 22:00-06:00 or 'mon-fri 22:00-06:00'")
        return {"start": start, "end": end, **({"days": days} if days else {})}


class Blackout(_Part):
    """Days, the last one included, on which nothing begins and what runs ends cleanly."""

    first: Annotated[date, Field(ge=date(1970, 1, 1), le=LATEST)]
    last: Annotated[date, Field(ge=date(1970, 1, 1), le=LATEST)]
    why: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("a blackout ends before it begins")
        return self


class Hook(_Part):
    """A program on the proxy, run as words, without a shell. What is known is in its environment (``LANFREE_JOB``,
    ``LANFREE_RUN``, ``LANFREE_STATE``). ``required``: the run does not begin without its success (after a run nothing is)."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Annotated[float, Field(gt=0, le=86400)] = 300.0
    required: bool = True


class RetryOn(StrEnum):
    """Branches of the error tree: what may be worth another attempt."""

    TRY_AGAIN = "try-again"
    TRANSPORT = "transport"
    RUN_FAILED = "run-failed"
    STOP_ALL = "stop-all"


class Retries(_Part):
    """``attempts`` in all for each machine; the wait doubles from ``wait`` seconds on. What only a person can decide is never
    tried again."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    wait: Annotated[float, Field(ge=0, le=86400)] = 300.0
    on: tuple[RetryOn, ...] = tuple(RetryOn)


class Cadence(_Part):
    """Once in ``days``, machines spread over them so that no night carries all. 0: never."""

    days: Annotated[int, Field(ge=0, le=3650)] = 0


Kept = Annotated[int, Field(ge=0, le=100_000)]
"""A number of restore points or periods. A hundred thousand days are before all restore points, and still a date."""


class Keep(_Part):
    """Retention, see ``proxy.repository.collection.retention.Policy``; the time zone is the job's."""

    last: Kept = 0
    days: Kept = 0
    hourly: Kept = 0
    daily: Kept = 0
    weekly: Kept = 0
    monthly: Kept = 0
    yearly: Kept = 0


class CopyTo(_Part):
    """After the run its restore points are copied to the ``[[copy_to]]`` of this name. ``retention``: of the copies."""

    name: str
    newest: Annotated[int, Field(ge=1, le=100_000)] | None = None
    retention: Keep | None = None


Mode = Literal["san", "raw", "lan"]


class Policy(_Part):
    """A job's policy. What is left out follows the configuration file.

    ``objective``: hours within which each machine is to have a restore point (26: a day and the length of a night's run).
    ``parallel``: tasks of this job at once, beside the limits of hosts and places. ``priority``: larger ones are taken first.
    """

    description: str = ""
    select: Selection = Selection()
    zone: Zone = "UTC"
    schedule: Schedule | None = None
    window: Annotated[
        tuple[Window, ...],
        BeforeValidator(_one, json_schema_input_type=str | tuple[Window | str, ...]),
        Field(max_length=MOST),
    ] = ()
    blackout: Annotated[tuple[Blackout, ...], Field(max_length=MOST)] = ()
    quiesce: QuiescePolicy | None = None
    transports: Annotated[
        tuple[Mode, ...] | None, BeforeValidator(_one, json_schema_input_type=Mode | tuple[Mode, ...] | None)
    ] = None
    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    retries: Retries = Retries()
    active_full: Cadence = Cadence()
    verify: Cadence = Cadence()
    retention: Keep | None = None
    copy_to: tuple[CopyTo, ...] = ()
    index: bool | None = None
    objective: Annotated[float, Field(gt=0, le=24 * 3660)] = 26.0
    parallel: Annotated[int, Field(ge=1, le=100_000)] | None = None
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0

    @property
    def within(self) -> timedelta:
        """The objective."""
        return timedelta(hours=self.objective)
