"""Changes of jobs, as people ask for them: by ``KEY=VALUE``, or by a file of jobs. Pure: what is written is decided here, where
it can be shown before it is done."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from appliance.jobs import job_text, schedule, window
from appliance.jobs.job_text import Written
from appliance.selecting import check
from catalog.jobs.policy import Keep, Policy
from catalog.jobs.values import Job
from proxy.errors import ConfigurationError
from proxy.machine_rules import Rule

if TYPE_CHECKING:
    from catalog.jobs.store import Unit

LOOKED_AT = timedelta(days=32)
"""How far ahead fires are compared with windows and blackouts: a month has every day of a usual schedule."""


class What(StrEnum):
    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one job. ``difference``: lines of its YAML with ``+`` and ``-``; empty where nothing changes."""

    name: str
    what: What
    before: Job | None
    after: Written | None
    difference: tuple[str, ...] = ()


def checked(policy: Policy) -> Policy:
    """Raises ``ConfigurationError`` for what only shows at 3 am otherwise: rules that are none, a schedule that never fires."""
    check(policy.select)
    schedule.check(policy)
    return policy


def wanted(text: str, source: str) -> dict[str, Written]:
    """The jobs of a file, each of them checked. ``source``: what to call it. Raises ``ConfigurationError``."""
    found = job_text.read(text, source)
    for name, each in found.items():
        try:
            checked(each.policy)
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: job {name}", error.message, hint=error.hint) from None
    return found


def changed(
    job: str,
    policy: Policy,
    assignments: Sequence[str] = (),
    unset: Sequence[str] = (),
    given: Mapping[str, object] | None = None,
) -> Policy:
    """Each assignment is ``KEY=VALUE``, or ``KEY+=VALUE`` for one more in a list; keys with dots (``retention.daily``), values
    in YAML. ``unset``: keys that get their defaults back. ``given``: key -> value, as it is. Raises ``ConfigurationError``."""
    document: dict[str, Any] = policy.model_dump(mode="json")
    for key in unset:
        place, last = _place(job, document, key)
        place.pop(last, None)
    for key, known in (given or {}).items():
        place, last = _place(job, document, key)
        place[last] = known
        _one_way(key, document)
    for text in assignments:
        key, equals, said = text.partition("=")
        if not equals or not key.strip("+ "):
            raise ConfigurationError(f"job {job}", f"{text!r} is not KEY=VALUE", hint="for example retention.daily=7")
        more = key.endswith("+")
        key = key.removesuffix("+").strip()
        place, last = _place(job, document, key)
        value = job_text.value(said)
        if isinstance(place.get(last), list) and not (last == "days" and isinstance(value, str)):
            many = value if isinstance(value, list) else [] if value is None else [value]
            value = [*place[last], *many] if more else many
        elif more:
            raise ConfigurationError(f"job {job}", f"{key} is no list (yet): say {key}=[…]")
        place[last] = value
        _one_way(key, document)
    return checked(job_text.policy_of(document, job))


def compare(existing: Collection[Job], wanted: Mapping[str, Written], *, prune: bool) -> list[Change]:
    """What it takes to have the wanted jobs. ``prune``: and no others."""
    known = {job.name: job for job in existing}
    changes = [_change(name, known.get(name), after) for name, after in wanted.items()]
    if prune:
        gone = [job for name, job in sorted(known.items()) if name not in wanted]
        changes += [_change(job.name, job, None) for job in gone]
    return changes


def apply(unit: "Unit", changes: Sequence[Change], now: datetime) -> None:
    """In the caller's transaction, so that it is all or nothing. Raises ``JobConflict``, ``JobBusy``."""
    for change in changes:
        if change.after is None:
            unit.jobs.remove(change.name)
            continue
        if change.before is None:
            unit.jobs.add(change.name, change.after.policy, now)
        elif change.before.policy != change.after.policy:
            unit.jobs.change(change.name, change.after.policy, change.before.revision, now)
        unit.jobs.enable(change.name, change.after.enabled, now)


def gaps(policy: Policy, copies: Collection[str], *, vcenters: bool) -> list[str]:
    """What is allowed and cannot be done as the configuration is now: somebody has to add to it, or mend the job. ``copies``:
    names of the configured second repositories; ``vcenters``: whether there are any."""
    found = [
        f"no [[copy_to]] in the configuration is named {copy.name}"
        for copy in policy.copy_to
        if copy.name not in copies
    ]
    foreign = {text: Rule.parse(text).foreign for text in policy.select.include if not vcenters}
    found += [
        f"no machine fits {text!r}: only machines of vCenters have a {what}, and none is configured"
        for text, what in foreign.items()
        if what
    ]
    return found


def remarks(policy: Policy, now: datetime, *, kept: bool) -> list[str]:
    """What is allowed and perhaps not meant. ``kept``: whether the configuration file has a rule of retention."""
    found = [
        f"its window {each.start:%H:%M}-{each.end:%H:%M} is all day" for each in policy.window if each.start == each.end
    ]
    if not policy.select.include:
        found.append("it selects no machine: there is no rule in select.include")
    if policy.schedule is None:
        found.append("it has no schedule: it runs only when somebody says 'lanfree job run'")
    else:
        fires = schedule.fires_between(policy, now, now + LOOKED_AT)[:100]
        shut = [fire for fire in fires if not window.is_open(policy, fire)]
        if shut:
            share = "all" if len(shut) == len(fires) else f"{len(shut)} of {len(fires)}"
            found.append(f"{share} of its coming runs begin outside of its window, and wait for that")
    if policy.retention in (None, Keep()) and not kept:
        found.append("nothing says how long its restore points are kept: all of them are")
    return found


def _change(name: str, before: Job | None, after: Written | None) -> Change:
    old = _lines(name, None if before is None else job_text.of(before))
    new = _lines(name, after)
    lines = tuple(line for line in difflib.ndiff(old, new) if line[:1] in "+-") if before and after else ()
    if before is None:
        return Change(name, What.ADD, None, after, tuple(f"+ {line}" for line in new))
    if after is None:
        return Change(name, What.REMOVE, before, None, tuple(f"- {line}" for line in old))
    return Change(name, What.CHANGE if lines else What.SAME, before, after, lines)


def _lines(name: str, job: Written | None) -> list[str]:
    return [] if job is None else job_text.write({name: job}).splitlines()[2:] or ["{}"]


def _place(job: str, document: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The part of the document that holds the last name of a key; parts that are left out begin empty."""
    *above, last = key.split(".")
    part = document
    for name in above:
        if part.get(name) is None and name in {"schedule", "retention"}:
            part[name] = {}
        below = part.get(name)
        if not isinstance(below, dict):
            raise ConfigurationError(
                f"job {job}",
                f"{key}: {name} has no parts that could be named" if name in part else f"{key}: there is no such key",
                hint=f"keys of a job: {', '.join(Policy.model_fields)}",
            )
        part = below
    return part, last


def _one_way(key: str, document: dict[str, Any]) -> None:
    """A schedule is by cron or by times of day: who says one takes the other back."""
    if key == "schedule.cron" and document["schedule"]["cron"] is not None:
        document["schedule"]["at"] = []
    if key == "schedule.at" and document["schedule"]["at"]:
        document["schedule"].pop("cron", None)
