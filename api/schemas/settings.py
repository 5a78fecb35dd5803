"""What of the configuration file may be changed while the appliance runs, and what it says beside that."""

import datetime as dt
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from api.schemas.common import Answer, Model, Refusal
from catalog.jobs.policy import Keep, Zone

Count = Annotated[int, Field(ge=0, le=1_000_000)]


class RetentionDefaults(Model):
    """Which restore points are kept of machines of which no job says it; without any rule all of them are."""

    keep: Keep = Keep()
    zone: Zone = "UTC"
    forgotten_jobs: Literal["keep", "follow"] = "keep"


class LimitSettings(Model):
    """Tasks at once over all proxies; 0: no limit. ``keys``: exceptions by key (``host:kvm1``)."""

    per_host: Count = 2
    per_place: Count = 4
    full_per_host: Count = 1
    per_repository: Count = 0
    keys: Annotated[dict[str, Count], Field(max_length=1000)] = Field(default_factory=dict)


class PlaceThresholds(Model):
    """Of one place, milliseconds a request."""

    hold_ms: Annotated[float, Field(gt=0, le=1e6)]
    slow_ms: Annotated[float, Field(gt=0, le=1e6)]


class LatencySettings(Model):
    """Above ``hold_ms`` a request nothing begins at a place, above ``slow_ms`` what runs there is slowed; both or neither."""

    hold_ms: Annotated[float, Field(gt=0, le=1e6)] | None = None
    slow_ms: Annotated[float, Field(gt=0, le=1e6)] | None = None
    slowest_mib: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    interval: Annotated[float, Field(ge=0.1, le=300)] = 20.0
    place: Annotated[dict[str, PlaceThresholds], Field(max_length=1000)] = Field(default_factory=dict)


class AcceptedGap(Model):
    """What a person accepts of machines' coverage, and why. ``machine``: a pattern of names, or an identity."""

    machine: Annotated[str, Field(min_length=1, max_length=255)]
    gap: Annotated[list[str], Field(min_length=1, max_length=16)]
    why: Annotated[str, Field(min_length=1, max_length=1000)]


class CoverageSettings(Model):
    """``objective``: hours within which a machine of no job is to have a restore point."""

    objective: Annotated[float, Field(gt=0, le=100_000)] = 26.0
    accept: Annotated[list[AcceptedGap], Field(max_length=1000)] = Field(default_factory=list)


class ProxySettings(Model):
    """Of this proxy. ``slots``: tasks at once."""

    slots: Annotated[int, Field(ge=1, le=64)] = 4


TransportName = Literal["san", "raw", "lan"]


def _transports() -> list[TransportName]:
    return ["san", "raw", "lan"]


class BackupSettings(Model):
    """``workers``: threads a disk; ``transports``: in order of preference; ``audit_sample``: chunks a disk that are compared
    although change tracking calls them unchanged."""

    workers: Annotated[int, Field(ge=1, le=64)] = 4
    transports: Annotated[list[TransportName], Field(min_length=1, max_length=3)] = Field(default_factory=_transports)
    quiesce: Literal["require", "prefer", "never"] = "prefer"
    audit_sample: Annotated[int, Field(ge=0, le=65536)] = 64
    tracking_lost: Literal["continue", "fail"] = "continue"

    @model_validator(mode="after")
    def _each_once(self) -> "BackupSettings":
        if len(set(self.transports)) < len(self.transports):
            raise ValueError("a transport is named twice")
        return self


class FileSettings(Model):
    """``index``: whether the names of files are recorded after each backup."""

    index: bool = True


class ProtectSettings(Model):
    """The appliance's own state as restore points; how many are kept."""

    enabled: bool = True
    last: Annotated[int, Field(ge=1, le=10_000)] = 14
    monthly: Annotated[int, Field(ge=0, le=10_000)] = 6
    catalog: bool = True


class ReportSettings(Model):
    """HTML reports of job runs that are kept; 0: none are written."""

    keep: Annotated[int, Field(ge=0, le=100_000)] = 400


class SessionSettings(Model):
    """When people have to sign in again: so long without a click, and so long in any case."""

    idle_minutes: Annotated[float, Field(ge=1, le=10080)] = 60.0
    session_hours: Annotated[float, Field(gt=0, le=8760)] = 12.0


class Changeable(Model):
    """All that may be changed here. Whatever is left out of a section takes its default."""

    retention: RetentionDefaults = RetentionDefaults()
    limits: LimitSettings = Field(default_factory=LimitSettings)
    latency: LatencySettings = Field(default_factory=LatencySettings)
    coverage: CoverageSettings = Field(default_factory=CoverageSettings)
    proxy: ProxySettings = ProxySettings()
    backup: BackupSettings = Field(default_factory=BackupSettings)
    files: FileSettings = FileSettings()
    protect: ProtectSettings = ProtectSettings()
    reports: ReportSettings = ReportSettings()
    sessions: SessionSettings = SessionSettings()


class NotificationWay(Answer):
    """A way to people, without its address: that holds secrets. ``waiting``: messages that it has not taken yet."""

    name: str
    kind: str
    events: list[str]
    jobs: list[str]
    quiet_from: dt.time | None
    quiet_to: dt.time | None
    waiting: int


class Console(Answer):
    """How the console is reached, and what its certificate is. ``authority``: fingerprint of our own that signed it."""

    address: str
    names: list[str]
    fingerprint: str
    authority: str | None
    certificate_expires_at: dt.datetime | None
    four_eyes: bool
    restore_directories: list[str]
    hypervisor_networks: list[str]
    hypervisor_uris: list[str]
    single_sign_on: str | None


class Settings(Answer):
    """``values``: what may be changed. The rest only root of this machine changes, in ``source``, because it says what the
    people who sign in here may reach. ``refused``: why what the file says now was not taken; the settings before it count."""

    source: str
    values: Changeable
    notify: list[NotificationWay]
    console: Console
    refused: Refusal | None


class NotificationTest(Model):
    """``name``: of one way; all of them, if it is left out."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")] | None = None


class NotificationResult(Answer):
    """Whether a way took the message; otherwise why not."""

    name: str
    told: bool
    why: str


class NotificationResults(Answer):
    """One a way."""

    results: list[NotificationResult]


class Outcome(StrEnum):
    """``WARN``: it works, but slower or with less; ``FAIL``: something that is asked for cannot work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class CheckResult(Answer):
    """One row. ``remedy``: what to do, empty where all is well."""

    check: str
    outcome: Outcome
    detail: str
    remedy: str


class Diagnosis(Answer):
    """What the doctor saw. ``at``: when; results are given again for some seconds."""

    at: dt.datetime
    worst: Outcome
    results: list[CheckResult]
