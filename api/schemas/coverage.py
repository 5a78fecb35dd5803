"""Coverage: what of each machine is protected against its objective, and what is not."""

from datetime import datetime

from api.schemas.common import Answer
from api.schemas.plan import Silence


class Finding(Answer):
    """``kind``: stable (``no-job``, ``too-old``, ``disk-not-held``, ...). ``counts``: the machine is not covered because of
    it. ``accepted``: why a person said that it is right so, else empty."""

    kind: str
    text: str
    counts: bool
    accepted: str


class CoveredMachine(Answer):
    """``objective`` and ``age`` in hours; ``point``: its newest good restore point; ``copies``: second repositories that
    have it."""

    machine: str
    name: str
    host: str
    covered: bool
    jobs: list[str]
    objective: float
    point: str | None
    created_at: datetime | None
    age: float | None
    consistency: str | None
    copies: list[str]
    findings: list[Finding]


class FormerMachine(Answer):
    """In the repository, and on no site any more."""

    machine: str
    name: str
    host: str
    newest: str
    created_at: datetime


class Coverage(Answer):
    """``covered``: every machine, and all of the site was seen. ``machines``: those that were asked for; ``total``,
    ``gaps``: of all. ``former`` is known only where every host answered, else they are ``unseen``. ``at``: when it was
    looked; at most a minute ago."""

    at: datetime
    covered: bool
    total: int
    gaps: int
    machines: list[CoveredMachine]
    former: list[FormerMachine]
    unseen: list[FormerMachine]
    silent: list[Silence]
    problems: list[str]
