"""What backups cost the hosts and their datastores."""

from datetime import datetime

from api.schemas.common import Answer
from api.schemas.plan import Silence


class Times(Answer):
    """One figure before, during and after a backup; null where nobody measured."""

    before: float | None
    during: float | None
    after: float | None


class PlaceImpact(Answer):
    """Seconds that a guest's request took on a datastore or LUN."""

    place: str
    read_latency: Times
    write_latency: Times


class BackupImpact(Answer):
    """One backup. ``over_host``: bytes that its host had to send; ``cpu``: share of the host's; ``copying``: seconds of it;
    ``bottleneck``: what took most of them."""

    task: str
    job_run: str | None
    machine: str
    name: str
    host: str
    ended_at: datetime | None
    bytes_read: int | None
    bytes_stored: int | None
    over_host: int | None
    frozen_seconds: float | None
    copying: float | None
    bottleneck: str | None
    stages: dict[str, float]
    cpu: Times
    received: Times
    sent: Times
    places: list[PlaceImpact]


class Impact(Answer):
    """Newest first."""

    items: list[BackupImpact]


class HostNow(Answer):
    """``cpu``: share; ``received``, ``sent``: bytes/s of its interfaces (``network`` is ``host``) or of its guests."""

    host: str
    cpu: float | None
    received: float | None
    sent: float | None
    network: str


class PlaceNow(Answer):
    """A second's requests and the seconds that each took; ``hold`` and ``slow``: thresholds in milliseconds, if there are
    any."""

    place: str
    reads: float
    writes: float
    read_latency: float | None
    write_latency: float | None
    hold: float | None
    slow: float | None


class ImpactNow(Answer):
    """Measured over ``seconds``."""

    at: datetime
    seconds: float
    hosts: list[HostNow]
    places: list[PlaceNow]
    silent: list[Silence]
