"""A job's policy as a form, and what somebody filled in as a policy. What the form does not show stays as it was."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.ui.markup import Child, Markup, join, tag
from api.ui.parts.dialogs import check, field
from api.ui.parts.part import Act
from catalog.jobs.policy import EVERY_DAY, Policy

_KEEP = (("last", "Newest"), ("daily", "Days"), ("weekly", "Weeks"), ("monthly", "Months"), ("yearly", "Years"))


def form(name: str, policy: Policy, *, zone: str, do: str, leave: str) -> Markup:
    """``do``: on the button; ``leave``: address of what is shown without a change."""
    buttons = tag(
        "div",
        tag("button", do, type="submit", cls="lf-btn primary"),
        tag("a", "Cancel", href=leave, cls="lf-btn"),
        cls="lf-inline",
    )
    parts = (
        _section("1. Name", _name(name, policy)),
        _section("2. Which machines", _machines(policy)),
        _section("3. When", _when(policy, zone)),
        _section("4. How long restore points are kept", _keep(policy)),
        _section("5. How", _how(policy)),
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


def _input(name: str, value: object, **more: str | int | bool | None) -> Markup:
    return tag("input", id=f"f-{name}", name=name, value=str(value), **{"type": "text", **more})


def _area(name: str, lines: Sequence[str], rows: int = 2) -> Markup:
    return tag("textarea", "\n".join(lines), id=f"f-{name}", name=name, rows=rows, spellcheck="false", cls="lf-mono")


def _choice(name: str, value: str, choices: Sequence[tuple[str, str]]) -> Markup:
    return tag(
        "select", *(tag("option", said, value=v, selected=v == value) for v, said in choices), id=f"f-{name}", name=name
    )


def _named(said: str, name: str, control: Markup, help_: Child = None) -> Markup:
    return field(said, control, for_=f"f-{name}", help_=help_)


def _pairs(*fields: Markup) -> Markup:
    return tag("div", *fields, cls="lf-pair")


def _name(name: str, policy: Policy) -> Markup:
    return _pairs(
        _named("Name", "name", _input("name", name, required=True, maxlength=64)),
        _named("Description", "description", _input("description", policy.description)),
    )


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
        _named(
            "Machines that fit any of",
            "include",
            _area("include", [one or "*" for one in policy.select.include], 3),
            rules,
        ),
        _named("But none of", "exclude", _area("exclude", policy.select.exclude)),
        _named(
            "Without these disks",
            "exclude_disks",
            _area("exclude_disks", policy.select.exclude_disks, 1),
            join("As ", tag("code", "db-*:vdc")),
        ),
    )


def _when(policy: Policy, zone: str) -> Markup:
    schedule = policy.schedule
    kind = "hand" if schedule is None else "cron" if schedule.cron else "at"
    kinds = (("at", "At times of day"), ("cron", "By a cron line"), ("hand", "By hand only"))
    days = schedule.days if schedule else EVERY_DAY
    boxes = [check(day.value.capitalize(), "days", checked=day in days, value=day.value) for day in EVERY_DAY]
    at = ", ".join(f"{time:%H:%M}" for time in schedule.at) if schedule and schedule.at else "22:00"
    cron = schedule.cron if schedule and schedule.cron else ""
    shown_zone = policy.zone if schedule or policy.zone != "UTC" else zone
    by_day = join(
        _named("Times of day", "at", _input("at", at), "As 22:00, several with commas."),
        tag("fieldset", tag("legend", "On"), tag("div", *boxes, cls="lf-inline")),
    )
    return join(
        _pairs(
            _named("Schedule", "kind", _choice("kind", kind, kinds)),
            _named("Time zone", "zone", _input("zone", shown_zone), "IANA name."),
        ),
        tag("div", by_day, cls="lf-if-at"),
        tag("div", _named("Cron line", "cron", _input("cron", cron), "Five fields."), cls="lf-if-cron"),
        _hours(policy),
    )


def _hours(policy: Policy) -> Markup:
    windows = [_window(one) for one in policy.window]
    missed = (("run", "Run as soon as the window allows"), ("skip", "Skip it"))
    chosen = policy.schedule.missed if policy.schedule else "run"
    said = "As 22:00-06:00, or 'sat,sun 08:00-20:00'; empty: at any time."
    return _pairs(
        _named("Backup window", "window", _area("window", windows, 1), said),
        _named("When its time was missed", "missed", _choice("missed", chosen, missed)),
    )


def _window(window: Any) -> str:
    days = "" if window.days == EVERY_DAY else ",".join(window.days) + " "
    return f"{days}{window.start:%H:%M}-{window.end:%H:%M}"


def _keep(policy: Policy) -> Markup:
    keep = policy.retention
    own = _choice(
        "retention",
        "own" if keep else "configured",
        (("own", "As said here"), ("configured", "As the appliance is configured")),
    )
    numbers = [
        _named(said, name, _input(name, getattr(keep, name) if keep else "", type="number", min=0))
        for name, said in _KEEP
    ]
    return join(
        _named("Rules", "retention", own),
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
    return _pairs(
        _named(
            "Quiesce the guest", "quiesce", _choice("quiesce", policy.quiesce.value if policy.quiesce else "", quiesce)
        ),
        _named("Transport", "transports", _choice("transports", transports, ways)),
        _named(
            "Objective, hours",
            "objective",
            _input("objective", f"{policy.objective:g}", type="number", min=1, step="any"),
            "A machine is overdue when its newest restore point is older.",
        ),
        _named(
            "Active full, every so many days",
            "active_full",
            _input("active_full", policy.active_full.days, type="number", min=0),
            "0: never; every restore point restores like a full anyway.",
        ),
        _named(
            "Machines at once",
            "parallel",
            _input("parallel", policy.parallel or "", type="number", min=1),
            "Empty: as the limits of hosts and places allow.",
        ),
        _named(
            "Copy to",
            "copy_to",
            _input("copy_to", ", ".join(one.name for one in policy.copy_to)),
            "Names of second repositories, with commas.",
        ),
    )


def policy_of(act: Act, before: Policy) -> dict[str, Any]:
    """What was filled in, over what was there, as JSON: the API says what is wrong with it."""
    said = before.model_dump(mode="json", exclude_unset=True)
    said["description"] = act.one("description")
    said["select"] = {
        "include": ["" if rule == "*" else rule for rule in _lines(act, "include")],
        "exclude": _lines(act, "exclude"),
        "exclude_disks": _lines(act, "exclude_disks"),
    }
    said["zone"] = act.one("zone").strip() or "UTC"
    said["schedule"] = _schedule(act)
    said["window"] = _lines(act, "window")
    said["retention"] = (
        {name: _number(act.one(name)) for name, _ in _KEEP if act.one(name)} if act.one("retention") == "own" else None
    )
    if said["retention"] is not None and before.retention is not None:
        said["retention"] = {
            **before.retention.model_dump(),
            **dict.fromkeys((name for name, _ in _KEEP), 0),
            **said["retention"],
        }
    said["quiesce"] = act.one("quiesce") or None
    said["transports"] = _commas(act.one("transports")) or None
    said["objective"] = _number(act.one("objective", "26"))
    said["active_full"] = {"days": _number(act.one("active_full", "0") or "0")}
    said["parallel"] = _number(act.one("parallel")) if act.one("parallel") else None
    said["copy_to"] = _copies(act.one("copy_to"), before)
    return said


def _schedule(act: Act) -> dict[str, Any] | None:
    match act.one("kind"):
        case "cron":
            return {"cron": act.one("cron").strip(), "missed": act.one("missed", "run")}
        case "at":
            return {
                "at": _commas(act.one("at")),
                "days": list(act.form.get("days", ())),
                "missed": act.one("missed", "run"),
            }
    return None


def _copies(said: str, before: Policy) -> list[Mapping[str, Any]]:
    there = {one.name: one.model_dump(mode="json") for one in before.copy_to}
    return [there.get(name, {"name": name}) for name in _commas(said)]


def _lines(act: Act, name: str) -> list[str]:
    return [line.strip() for line in act.one(name).splitlines() if line.strip()]


def _commas(said: str) -> list[str]:
    return [part.strip() for part in said.split(",") if part.strip()]


def _number(said: str) -> float | int | str:
    """As a number; what is none goes to the API as it is, which says so."""
    try:
        value = float(said)
    except ValueError:
        return said
    return int(value) if value.is_integer() else value
