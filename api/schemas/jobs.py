"""Jobs: policies under names, what one would mean before it is stored, and many as YAML."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import Answer, Model, Reason
from api.schemas.plan import ComingRun, PlanEffect, Silence
from catalog.jobs.policy import Policy

JobName = Annotated[str, Field(min_length=1, max_length=64, description="Letters, digits, and ' ._+@-' within.")]


class RunBrief(Answer):
    """A job run, in short. ``state``: ``running``, ``done``, ``attention``, ``failed``, ``stopped``, ``skipped``."""

    id: str
    state: str
    started_at: datetime
    ended_at: datetime | None


class JobLine(Answer):
    """A job in a list. ``machines`` and ``timing``: its rules and its schedule in words; ``next``: its coming runs, none
    while it is disabled or without a schedule; ``current_run``: that goes on."""

    id: str
    name: str
    description: str
    enabled: bool
    revision: int
    machines: str
    timing: str
    zone: str
    next: list[datetime]
    last_run: RunBrief | None
    current_run: RunBrief | None
    created_at: datetime
    updated_at: datetime


class Remark(Answer):
    """``gap``: somebody has to mend the job or add to the configuration; ``remark``: allowed, and perhaps not meant."""

    kind: Literal["gap", "remark"]
    text: str


class Job(JobLine):
    """With its policy. ``revision`` is also the ``ETag``: a change names the one that it changes by ``If-Match``."""

    policy: Policy
    remarks: list[Remark]


class NewJob(Model):
    """A job to be made."""

    name: JobName
    policy: Policy
    enabled: bool = True


class ChangedJob(Model):
    """What a job is to be from now on: all of its policy. ``name``: another name, if it is to have one."""

    policy: Policy
    name: JobName | None = None


class AskedRun(Model):
    """A run by command. ``full``: everything is read; ``machines``: only these of the job's, by name or identity."""

    full: bool = False
    machines: Annotated[tuple[str, ...], Field(max_length=1000)] = ()


class RunBegun(Answer):
    """``served``: whether any proxy lives that works on it; without one it waits for 'lanfree serve'."""

    id: str
    job: str
    served: bool


class PreviewRequest(Model):
    """A policy that is not stored. ``name``: of the job that it is to be; one that exists is replaced by it in the plan.
    ``hours``: how far the plan looks. ``limit``: so many machines are named at most, all are counted. ``look_again``: ask
    the sites now, which may take seconds."""

    policy: Policy
    name: str = Field("", max_length=64)
    hours: Annotated[float, Field(ge=0.25, le=24 * 14)] = 24.0
    plan: bool = True
    look_again: bool = False
    limit: Annotated[int, Field(ge=0, le=10000)] = 200


class ChosenMachine(Answer):
    """``rule``: the first one that it fits, empty for the rule of every machine; for an excluded one the rule that leaves it
    out. ``exclude_disks``: that its points will not hold. ``size``: bytes of its disks, null where nobody knows. ``places``:
    datastores and LUNs."""

    id: str
    name: str
    host: str
    state: str
    rule: str
    exclude_disks: tuple[str, ...] = ()
    size: int | None = None
    places: tuple[str, ...] = ()


class Fire(Answer):
    """A coming run. ``local``: in the job's zone, as people read it. ``opens``: when its window lets it begin, if that is
    later than ``at``, null if never; ``closes``: the window's end. ``waits``: why it does not begin at its time;
    ``skipped``: it will not take place at all."""

    at: datetime
    local: str
    begins: datetime | None
    closes: datetime | None
    waits: Reason | None
    skipped: bool


class KeptPoint(Answer):
    """``by``: the rules that keep it, in words: ``daily 3 of 7 (2026-11-21)``."""

    at: datetime
    by: list[str]


class RetentionPreview(Answer):
    """What the rules would keep of a history with a run at each time of the schedule (one a day without one, and long ago),
    all good. ``rules``: in words; ``of``: ``job``, ``configuration``, or ``none``: then all are kept. ``runs``: so many were
    looked at, back to ``since``; ``kept``: the newest of ``kept_count``, newest first."""

    rules: str
    of: Literal["job", "configuration", "none"]
    since: datetime
    runs: int
    kept_count: int
    kept: list[KeptPoint]


class PlanPreview(Answer):
    """The coming hours with this policy in force, beside the other jobs. ``runs``: of this job; ``begin`` and ``end``: of
    its first and last backup; ``unfit``: its machines without a place, the first few named in ``unfit_named`` with the
    reason. ``night``: of all jobs together; ``before``: the same without this policy."""

    hours: float
    runs: list[ComingRun]
    begin: datetime | None
    end: datetime | None
    planned: int
    unfit: int
    unfit_named: list[str]
    night: PlanEffect
    before: PlanEffect


class JobPreview(Answer):
    """What a policy means now; nothing is stored. ``machines``: the first of ``chosen`` in all, with ``bytes`` on their disks.
    ``excluded``: fit a rule, and one that leaves them out. ``idle``: rules that fit nothing. ``seen_at``: when the sites were
    looked at; ``live``: whether that was for this answer. ``took``: seconds, by part."""

    policy: Policy
    chosen: int
    bytes: int
    machines: list[ChosenMachine]
    excluded_count: int
    excluded: list[ChosenMachine]
    idle: list[str]
    silent: list[Silence]
    fires: list[Fire]
    window: str
    remarks: list[Remark]
    retention: RetentionPreview
    plan: PlanPreview | None
    plan_refused: str = ""
    seen_at: datetime
    live: bool
    took: dict[str, float]


class JobChange(Answer):
    """What an import does to a job: ``add``, ``change``, ``remove`` or ``same``; ``difference``: lines of its YAML, + and
    -."""

    name: str
    what: str
    difference: list[str]
    remarks: list[Remark]


class ImportRequest(Model):
    """``text``: YAML as the export gives it. ``dry_run``: only tell. ``prune``: remove jobs that it does not name."""

    text: Annotated[str, Field(max_length=1024 * 1024)]
    dry_run: bool = False
    prune: bool = False


class ImportResult(Answer):
    """All of it was done, or (``dry_run``) nothing."""

    dry_run: bool
    jobs: list[JobChange]
