"""Sections of the configuration file about jobs and who works on them: ``[latency]``, ``[limits]``, ``[proxy]``, ``[protect]``,
``[coverage]``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from appliance.config_section import Section


class PlaceLatency(Section):
    """Thresholds of one place, see ``Latency``."""

    hold_ms: Annotated[float, Field(gt=0)]
    slow_ms: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.slow_ms < self.hold_ms:
            raise ValueError("slow_ms is below hold_ms")
        return self


class Latency(Section):
    """Yielding to the guests. Above ``hold_ms`` a request, as the hypervisor's counters show it, nothing begins at a place
    (datastore, LUN, directory); above ``slow_ms`` what runs there is slowed, to ``slowest_mib`` MiB/s at the least (slower than
    8, a snapshot stays open too long). Off unless both are said, since only you know what is usual for your arrays ('lanfree
    impact' shows it): 20 and 30 for disks, 5 and 10 for flash. ``[latency.place."NAME"]``: others for one place, or for it
    alone. ``interval``: seconds between two looks; vSphere has a new sample every 20."""

    hold_ms: Annotated[float, Field(gt=0)] | None = None
    slow_ms: Annotated[float, Field(gt=0)] | None = None
    slowest_mib: Annotated[float, Field(gt=0)] = 8.0
    interval: Annotated[float, Field(ge=0.1, le=300)] = 20.0
    place: dict[str, PlaceLatency] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.hold_ms is None) != (self.slow_ms is None):
            raise ValueError("latency needs both hold_ms and slow_ms, or neither")
        if self.hold_ms is not None and self.slow_ms is not None and self.slow_ms < self.hold_ms:
            raise ValueError("latency.slow_ms is below hold_ms")
        return self

    @property
    def governs(self) -> bool:
        """Whether any place has thresholds."""
        return self.hold_ms is not None or bool(self.place)

    def of(self, place: str) -> tuple[float, float] | None:
        """``hold`` and ``slow`` of a place in milliseconds."""
        known = self.place.get(place)
        if known is not None:
            return known.hold_ms, known.slow_ms
        return None if self.hold_ms is None or self.slow_ms is None else (self.hold_ms, self.slow_ms)


class Protect(Section):
    """The appliance's own state as restore points of ``lanfree``, in the repository and every ``[[copy_to]]``, after each job
    run. ``last``, ``monthly``: how many are kept (a night and a half year of months to go back to, in case that the newest
    holds a mistake). ``catalog``: with the index of files, which comes from restore points again, though slowly; leave it out
    where PostgreSQL holds many millions of files, since each copy of its rows takes their time and room."""

    enabled: bool = True
    last: Annotated[int, Field(ge=1)] = 14
    monthly: Annotated[int, Field(ge=0)] = 6
    catalog: bool = True


class Limits(Section):
    """How many tasks of jobs may run at once, over all proxies, so that no part of the site carries more than it should. 0: no
    limit. ``per_host``: backups whose machines run on one host; its snapshots and guests feel them. ``per_place``: backups from
    one datastore or LUN; disks that seek want few, flash takes many. ``full_per_host``: those among them that read everything.
    ``per_repository``: writers into one repository; a single slow disk wants few. ``keys``: exceptions by key, as
    ``"host:kvm1" = 4`` or ``"place:array1/3" = 1``; 'lanfree job tasks' shows the keys of tasks."""

    per_host: Annotated[int, Field(ge=0)] = 2
    per_place: Annotated[int, Field(ge=0)] = 4
    full_per_host: Annotated[int, Field(ge=0)] = 1
    per_repository: Annotated[int, Field(ge=0)] = 0
    keys: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class Proxy(Section):
    """This process among those that serve. ``name``: as people call it; the host name where it is not said. ``slots``: tasks at
    once; some copy while others wait for a snapshot or a merge, and each takes ``backup.workers`` threads. ``beat``, ``fence``,
    ``takeover``: seconds, see ``appliance.serving.heartbeats.Times``; they count where several machines share a database. One
    that is often away for longer wants a longer ``takeover``; runs of a dead proxy then stand still for as long."""

    name: str = ""
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    beat: Annotated[float, Field(gt=0)] = 5.0
    fence: Annotated[float, Field(gt=0)] = 30.0
    takeover: Annotated[float, Field(gt=0)] = 60.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.beat * 2 <= self.fence < self.takeover:
            raise ValueError("twice the beat, fence and takeover have to be in this order")
        return self


GapName = Literal[
    "no-job",
    "no-restore-point",
    "no-good-restore-point",
    "too-old",
    "disk-not-held",
    "less-consistent",
    "network-volume",
    "not-copied",
]


class Accepted(Section):
    """What a person accepts of a machine's coverage, and ``why``. ``machine``: pattern of its name (``db-*``), or its identity;
    ``gap``: kinds of findings as ``lanfree coverage`` names them (``network-volume``)."""

    machine: Annotated[str, Field(min_length=1)]
    gap: Annotated[tuple[GapName, ...], Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]


class Coverage(Section):
    """``objective``: hours within which a machine of no job is to have a restore point; jobs say it for theirs. 26 are a day
    and the length of a night's run. ``accept``: what is right as it is."""

    objective: Annotated[float, Field(gt=0)] = 26.0
    accept: tuple[Accepted, ...] = ()
