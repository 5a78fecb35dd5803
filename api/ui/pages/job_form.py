"""A job's policy as a form, and what somebody filled in as a policy. What the form does not show stays as it was."""

from typing import Any

from api.ui.markup import Markup, join, tag
from api.ui.pages.job_fields import (
    area,
    choice,
    figure,
    hour,
    listed,
    named,
    number,
    one_line,
    pairs,
    split,
    text_input,
    window_text,
)
from api.ui.pages.job_more import more, more_of
from api.ui.parts.dialogs import check
from api.ui.parts.part import Act
from catalog.jobs.policy import EVERY_DAY, Policy, Schedule

_KEEP = (("last", "Newest"), ("daily", "Days"), ("weekly", "Weeks"), ("monthly", "Months"), ("yearly", "Years"))


def form(name: str, policy: Policy, *, do: str, leave: str, hooks: bool) -> Markup:
    """``do``: on the button; ``leave``: address of what is shown without a change; ``hooks``: whether who fills it in may
    change commands."""
    buttons = tag(
        "div",
        tag("button", do, type="submit", cls="lf-btn primary"),
        tag("a", "Cancel", href=leave, cls="lf-btn"),
        cls="lf-inline",
    )
    parts = (
        _section("1. Name", _name(name, policy)),
        _section("2. Which machines", _machines(policy)),
        _section("3. When", _when(policy)),
        _section("4. How long restore points are kept", _keep(policy)),
        _section("5. How", join(_how(policy), more(policy, hooks=hooks))),
    )
    return tag("form", *parts, buttons, data_act="save", data_change="preview")


def _section(title: str, content: Markup) -> Markup:
    return tag(
        "section",
        tag("header", tag("h2", title)),
        tag("div", content, cls="lf-body"),
        cls="lf-card",
        style="margin-bottom:16px",
    )


def _name(name: str, policy: Policy) -> Markup:
    return pairs(
        named("Name", "name", text_input("name", name, required=True, maxlength=64)),
        named("Description", "description", text_input("description", _described(policy))),
    )


def _described(policy: Policy) -> str:
    """Without ends of lines, as a browser shows it."""
    return "".join(policy.description.splitlines())


def _rules(rules: tuple[str, ...]) -> list[str]:
    return [one_line(rule) or "*" for rule in rules]


def _machines(policy: Policy) -> Markup:
    rules = join(
        "A rule a line: ",
        tag("code", "name=web-*"),
        ", ",
        tag("code", "tag=backup:gold"),
        ", ",
        tag("code", "folder=Prod"),
        ", ",
        tag("code", "host=kvm1"),
        "; several in a line must all fit. ",
        tag("code", "*"),
        " is every machine.",
    )
    return join(
        named(
            "Machines that fit any of",
            "include",
            area("include", _rules(policy.select.include), 3),
            rules,
        ),
        named("But none of", "exclude", area("exclude", _rules(policy.select.exclude))),
        named(
            "Without these disks",
            "exclude_disks",
            area("exclude_disks", [one_line(one) for one in policy.select.exclude_disks], 1),
            join("As ", tag("code", "db-*:vdc")),
        ),
    )


def _when(policy: Policy) -> Markup:
    schedule = policy.schedule
    kind = _kind(schedule)
    kinds = (("at", "At times of day"), ("cron", "By a cron line"), ("hand", "By hand only"))
    days = schedule.days if schedule else EVERY_DAY
    boxes = [check(day.value.capitalize(), "days", checked=day in days, value=day.value) for day in EVERY_DAY]
    at = ", ".join(map(hour, schedule.at)) if schedule and schedule.at else "22:00"
    cron = schedule.cron if schedule and schedule.cron else ""
    by_day = join(
        named("Times of day", "at", text_input("at", at), "As 22:00, several with commas."),
        tag("fieldset", tag("legend", "On"), tag("div", *boxes, cls="lf-inline")),
    )
    return join(
        pairs(
            named("Schedule", "kind", choice("kind", kind, kinds)),
            named("Time zone", "zone", text_input("zone", policy.zone), "IANA name."),
        ),
        tag("div", by_day, cls="lf-if-at"),
        tag("div", named("Cron line", "cron", text_input("cron", cron), "Five fields."), cls="lf-if-cron"),
        _hours(policy),
    )


def _kind(schedule: Schedule | None) -> str:
    return "hand" if schedule is None else "at" if schedule.cron is None else "cron"


def _hours(policy: Policy) -> Markup:
    windows = [window_text(one) for one in policy.window]
    missed = (("run", "Run as soon as the window allows"), ("skip", "Skip it"))
    chosen = policy.schedule.missed if policy.schedule else "run"
    said = "As 22:00-06:00, or 'sat,sun 08:00-20:00'; empty: at any time."
    return pairs(
        named("Backup window", "window", area("window", windows, 1), said),
        named("When its time was missed", "missed", choice("missed", chosen, missed)),
    )


def _keep(policy: Policy) -> Markup:
    keep = policy.retention
    own = choice(
        "retention",
        "own" if keep else "configured",
        (("own", "As said here"), ("configured", "As the appliance is configured")),
    )
    numbers = [
        named(said, name, text_input(name, getattr(keep, name) if keep else "", type="number", min=0))
        for name, said in _KEEP
    ]
    return join(
        named("Rules", "retention", own),
        tag("div", *numbers, style="display:grid;grid-template-columns:repeat(auto-fit,minmax(64px,1fr));gap:10px"),
        tag(
            "p",
            "A restore point is kept if any rule keeps it; weeks, months and years keep the newest of each.",
            cls="lf-dim lf-small",
        ),
    )


def _how(policy: Policy) -> Markup:
    quiesce = (
        ("", "As configured"),
        ("require", "Require: fail rather than crash-consistent"),
        ("prefer", "Prefer: take what is possible"),
        ("never", "Never"),
    )
    transports = ",".join(policy.transports) if policy.transports else ""
    ways: tuple[tuple[str, str], ...] = (
        ("", "As configured"),
        ("san,lan", "SAN, else LAN"),
        ("san", "SAN only"),
        ("lan", "LAN only"),
        ("raw", "Raw"),
        ("san,raw,lan", "SAN, raw, LAN"),
    )
    if transports not in dict(ways):
        ways = (*ways, (transports, transports.upper()))
    return pairs(
        named(
            "Quiesce the guest", "quiesce", choice("quiesce", policy.quiesce.value if policy.quiesce else "", quiesce)
        ),
        named("Transport", "transports", choice("transports", transports, ways)),
        named(
            "Objective, hours",
            "objective",
            text_input("objective", figure(policy.objective), type="number", min=0, step="any"),
            "A machine is overdue when its newest restore point is older.",
        ),
        named(
            "Active full, every so many days",
            "active_full",
            text_input("active_full", policy.active_full.days, type="number", min=0),
            "0: never; every restore point restores like a full anyway.",
        ),
        named(
            "Machines at once",
            "parallel",
            text_input("parallel", policy.parallel or "", type="number", min=1),
            "Empty: as the limits of hosts and places allow.",
        ),
        named(
            "Copy to",
            "copy_to",
            text_input("copy_to", ", ".join(one_line(one.name) for one in policy.copy_to)),
            "Names of second repositories, with commas.",
        ),
    )


def policy_of(act: Act, before: Policy) -> dict[str, Any]:
    """What was filled in, over what was there, as JSON: the API says what is wrong with it. Raises ``ConfigurationError``."""
    there = before.model_dump(mode="json")
    said = before.model_dump(mode="json", exclude_unset=True)
    if act.one("description") != _described(before):
        said["description"] = act.one("description")
    said["select"] = {name: _selected(act, name, before) for name in ("include", "exclude", "exclude_disks")}
    said["zone"] = act.one("zone").strip() or "UTC"
    said["schedule"] = _schedule(act, before.schedule)
    said["window"] = listed(act.one("window"), [window_text(one) for one in before.window], there["window"])
    said["retention"] = _kept(act, before)
    said["quiesce"] = act.one("quiesce") or None
    if act.one("transports") != ",".join(before.transports or ()):
        said["transports"] = split(act.one("transports"), ",") or None
    said["objective"] = number(act.one("objective", "26"))
    said["active_full"] = {"days": number(act.one("active_full", "0") or "0")}
    said["parallel"] = number(act.one("parallel")) if act.one("parallel") else None
    copies = [one_line(one.name) for one in before.copy_to]
    said["copy_to"] = listed(
        act.one("copy_to"), copies, there["copy_to"], between=",", read=lambda name: {"name": name}
    )
    return said | more_of(act, before, there)


def _selected(act: Act, name: str, before: Policy) -> list[str]:
    rules: tuple[str, ...] = getattr(before.select, name)
    if name == "exclude_disks":
        return listed(act.one(name), [one_line(one) for one in rules], rules)
    return listed(act.one(name), _rules(rules), rules, read=lambda rule: "" if rule == "*" else rule)


def _schedule(act: Act, before: Schedule | None) -> dict[str, Any] | None:
    """Days of a cron line have no boxes; those of times stay in the order in which they were said."""
    kind = act.one("kind")
    if kind not in ("at", "cron"):
        return None
    there = before.model_dump(mode="json") if before is not None and _kind(before) == kind else {}
    said: dict[str, Any] = {**there, "missed": act.one("missed", "run")}
    if kind == "cron":
        line = act.one("cron")
        return {**said, "cron": line if line == there.get("cron") else line.strip()}
    ticked = list(act.form.get("days", ()))
    days = there.get("days", ())
    known = [hour(time) for time in before.at] if before else []
    at = listed(act.one("at"), known, there.get("at", ()), between=",")
    return {**said, "at": at, "days": days if set(ticked) == set(days) else ticked}


def _kept(act: Act, before: Policy) -> dict[str, Any] | None:
    if act.one("retention") != "own":
        return None
    said = {name: number(act.one(name)) for name, _ in _KEEP if act.one(name)}
    if before.retention is None:
        return said
    return {**before.retention.model_dump(), **dict.fromkeys((name for name, _ in _KEEP), 0), **said}
