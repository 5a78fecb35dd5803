"""Which retention a restore point follows: its job's, that of the copies among which it is, else ``[retention]``. Pure.

::

    repository    restore point                    follows
    our own       pulled from NAME                 [[copy_from]] NAME, each job's points counted by themselves
                  brought by another site          nothing: it is kept
                  made by a job                    the job's retention; [retention] where the job says none
                  of no job                        [retention]
    [[copy_to]]   brought or made by another site  nothing: it is kept
                  pulled from NAME                 [[copy_to]] retention, each job's points counted by themselves
                  made by a job                    the job's copy_to of this name; [[copy_to]] retention where it says none
                  of no job                        [[copy_to]] retention

What is in the restore point's manifest decides, not who asks. It names the job's identity, so that a job that was renamed or
removed is still known, and another one that has its name now is not taken for it: points go on following the last policy of
their own job. A point that only has a name (of an older version) follows the one job that ever had it; of two, nobody knows
which: it is kept. Points of a job of which nobody knows anything any more are kept, unless ``forgotten_jobs`` says otherwise,
and with it what another site brought into our own repository.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from appliance import config
from catalog.jobs.policy import Keep
from catalog.jobs.policy import Policy as JobPolicy
from catalog.jobs.values import PastJob
from proxy.model import ReasonCode, RestorePoint, RestorePointId
from proxy.repository.collection.retention import COUNTED, Policies, Policy

_ORIGIN = re.compile(r"repository ([0-9a-f]{32})\b")

# Of an identity, where a name is not enough to tell two jobs or repositories apart.
_SHOWN = 12


@dataclass(slots=True)
class Rules:
    """``names``: restore point -> the rules that it follows, as ``PointFacts.rules`` has them."""

    names: dict[RestorePointId, str] = field(default_factory=dict)
    policies: Policies = field(default_factory=Policies)


def rules_of(
    points: Iterable[RestorePoint],
    settings: config.Settings,
    jobs: Sequence[PastJob],
    *,
    own: str,
    repository: str = "",
) -> Rules:
    """``own``: identity of our own repository; ``repository``: name of a ``[[copy_to]]`` in which the points are, empty for
    our own."""
    where = _Where(settings, _Jobs.of(jobs), own, repository)
    named: dict[str, Policy] = {}
    rules = Rules()
    for point in points:
        label, policy = where.follows(point)
        rules.names[point.id] = label
        if label and policy is not None:
            named[label] = policy
    rules.policies = Policies(policy_of(where.section), named)
    return rules


@dataclass(frozen=True, slots=True)
class _Jobs:
    """``labels``: identity -> what people read, another one for each job."""

    by_id: Mapping[str, PastJob]
    by_name: Mapping[str, Sequence[PastJob]]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, jobs: Sequence[PastJob]) -> Self:
        by_name: dict[str, list[PastJob]] = {}
        for job in jobs:
            for name in job.names:
                by_name.setdefault(name, []).append(job)
        shown = Counter(job.names[0] for job in jobs)
        labels = {
            job.id: job.names[0] if shown[job.names[0]] == 1 else _told_apart(job.names[0], job.id) for job in jobs
        }
        return cls({job.id: job for job in jobs}, by_name, labels)


@dataclass(frozen=True, slots=True)
class _Where:
    """The points of one repository."""

    settings: config.Settings
    jobs: _Jobs
    own: str
    repository: str

    @property
    def section(self) -> config.Retention:
        """Of what follows no other rules."""
        return _section(self.settings, self.repository)

    def follows(self, point: RestorePoint) -> tuple[str, Policy | None]:
        """Name of the rules, and the policy; ``None``: nobody knows one."""
        base, job = policy_of(self.section), made_by(point)
        follow = self.section.forgotten_jobs == "follow"
        if whose := self._whose(point):
            label = ", ".join(filter(None, (whose, job and f"job {job}")))
            return label, base if follow and not self.repository else None
        if pulled := self._pulled(point):
            label = ", ".join(filter(None, (f"copies from {pulled}", job and f"job {job}")))
            return label, base if self.repository else self._source(pulled)
        if not job:
            return "", base
        identity = job_id(point)
        known = [self.jobs.by_id[identity]] if identity in self.jobs.by_id else []
        known = known if identity else list(self.jobs.by_name.get(job, ()))
        if len(known) == 1:
            return f"job {self.jobs.labels[known[0].id]}", _of_job(known[0].policy, self.repository) or base
        if known:
            return f"job {job}, one of {len(known)} of this name", None
        return f"job {_told_apart(job, identity) if identity else job}", base if follow else None

    def _whose(self, point: RestorePoint) -> str:
        """Another site, if that one brought it here: not ours, whatever its job is called. Each copy added its source."""
        origins = [reason.detail for reason in point.reasons if reason.code is ReasonCode.COPIED]
        if self.repository:
            # Who put it here; what was never copied was made here, by the appliance whose own repository this is.
            origin = _identity(origins[-1]) if origins else ""
            return "" if origin == self.own else _site(origin)
        if not origins or self._pulled(point):
            return ""
        origin = _identity(origins[0])
        return "" if origin == self.own else _site(origin)

    def _pulled(self, point: RestorePoint) -> str:
        """Name of the ``[[copy_from]]`` through which it came to us. In our own repository the last copy tells."""
        steps = [reason for reason in point.reasons if reason.code in (ReasonCode.COPIED, ReasonCode.PULLED)]
        if not self.repository:
            steps = steps[-1:]
        return next((reason.detail for reason in reversed(steps) if reason.code is ReasonCode.PULLED), "")

    def _source(self, name: str) -> Policy | None:
        return next((policy_of(each.retention) for each in self.settings.copy_from if each.name == name), None)


def has_rules(settings: config.Settings, policy: JobPolicy, repository: str = "") -> bool:
    """Whether a run of this job may leave something to remove in our own repository, or in a ``[[copy_to]]``."""
    own = _of_job(policy, repository)
    if own is not None and not own.is_empty:
        return True
    return not policy_of(_section(settings, repository)).is_empty


def shortens(before: JobPolicy, after: JobPolicy, settings: config.Settings) -> str:
    """What a change of a job's policy would let go earlier, in our own repository or a copy, in words; empty for nothing. The
    rules that both follow in the end are compared: where a job says none, the configuration's."""
    found: list[str] = []
    for name in ("", *dict.fromkeys(copy.name for copy in (*before.copy_to, *after.copy_to))):
        base = policy_of(_section(settings, name))
        old, new = _of_job(before, name) or base, _of_job(after, name) or base
        if less := keeps_less(old, new):
            found.append(f"{f'copies in {name}: ' if name else ''}{less}")
    return "; ".join(found)


def keeps_less(old: Policy, new: Policy) -> str:
    """What the new rules let go earlier than the old ones, in words; empty for nothing."""
    if new.is_empty:
        return ""  # it removes nothing any more
    if old.is_empty:
        return f"{new}, where all was kept"
    less = [rule for rule in COUNTED if new.count(rule) < old.count(rule)]
    return ", ".join(f"{rule.value} {old.count(rule)} to {new.count(rule)}" for rule in less)


def made_by(point: RestorePoint) -> str:
    """Name of the job, empty for a point of none."""
    return next((reason.detail for reason in point.reasons if reason.code is ReasonCode.MADE_BY_JOB), "")


def job_id(point: RestorePoint) -> str:
    """The job's identity, empty for a point of none and for those of versions that did not note it."""
    return next((reason.detail for reason in point.reasons if reason.code is ReasonCode.MADE_BY_JOB_ID), "")


def is_copy(point: RestorePoint) -> bool:
    """Whether it was made in another repository."""
    return any(reason.code is ReasonCode.COPIED for reason in point.reasons)


def policy_of(section: config.Retention) -> Policy:
    """As it is configured."""
    return Policy(**section.model_dump(exclude={"forgotten_jobs"}))


def _of_job(policy: JobPolicy, repository: str) -> Policy | None:
    """What the job says of this repository, if it says anything."""
    keep: Keep | None = policy.retention
    if repository:
        keep = next((copy.retention for copy in policy.copy_to if copy.name == repository), None)
    return None if keep is None else Policy(**keep.model_dump(), zone=policy.zone)


def _section(settings: config.Settings, repository: str) -> config.Retention:
    if not repository:
        return settings.retention
    return next((each.retention for each in settings.copy_to if each.name == repository), config.Retention())


def _identity(copied: str) -> str:
    """Of the repository that a copy's reason names."""
    found = _ORIGIN.match(copied)
    return found[1] if found else "unknown"


def _site(origin: str) -> str:
    return f"another site's, repository {origin[:_SHOWN]}" if origin else "another site's"


def _told_apart(name: str, identity: str) -> str:
    return f"{name} ({identity[:_SHOWN]})"
