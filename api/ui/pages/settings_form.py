"""The form of the settings: which there are, in words, and the values that a filled in form means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.schemas.settings import Changeable
from api.ui.markup import Markup, join, tag
from api.ui.parts.blocks import card
from api.ui.parts.dialogs import field
from api.ui.parts.part import Act


@dataclass(frozen=True, slots=True)
class Setting:
    """``path``: in the values, with dots. ``kind``: ``int``, ``float``, ``bool``, ``text``, ``list``; ``choices`` instead of
    it: value and words. ``may_be_empty``: empty means that it is not set."""

    path: str
    title: str
    kind: str = "int"
    help: str = ""
    choices: Sequence[tuple[str, str]] = ()
    may_be_empty: bool = False


SECTIONS: tuple[tuple[str, str, tuple[Setting, ...]], ...] = (
    (
        "Retention",
        "Of machines of which no job says it. A restore point is kept if any rule keeps it; without any rule all of them are.",
        (
            Setting("retention.keep.last", "The newest"),
            Setting("retention.keep.days", "Days: all of them"),
            Setting("retention.keep.hourly", "Hours: one of each"),
            Setting("retention.keep.daily", "Days: one of each"),
            Setting("retention.keep.weekly", "Weeks: one of each"),
            Setting("retention.keep.monthly", "Months: one of each"),
            Setting("retention.keep.yearly", "Years: one of each"),
            Setting("retention.zone", "Time zone of days and weeks", "text"),
            Setting(
                "retention.forgotten_jobs",
                "Restore points of jobs that are no more",
                choices=(("keep", "Keep them all"), ("follow", "Follow these rules")),
            ),
        ),
    ),
    (
        "Backups",
        "What jobs do not say otherwise.",
        (
            Setting("backup.workers", "Threads a disk"),
            Setting("backup.transports", "Transports, preferred first", "list"),
            Setting(
                "backup.quiesce",
                "Quiesce guests",
                choices=(("require", "Always, or fail"), ("prefer", "If they answer"), ("never", "Never")),
            ),
            Setting("backup.audit_sample", "Unchanged chunks to compare, a disk"),
            Setting(
                "backup.tracking_lost",
                "When change tracking was lost",
                choices=(("continue", "Read everything"), ("fail", "Fail, so that somebody looks")),
            ),
            Setting("files.index", "Record files after each backup", "bool"),
        ),
    ),
    (
        "Load",
        "So that guests do not wait for backups. 0 is no limit.",
        (
            Setting("proxy.slots", "Tasks at once on this proxy"),
            Setting("limits.per_host", "Tasks at once a host"),
            Setting("limits.per_place", "Tasks at once a LUN or datastore"),
            Setting("limits.full_per_host", "Full backups at once a host"),
            Setting("limits.per_repository", "Tasks at once a repository"),
            Setting("latency.hold_ms", "Begin nothing above ms a request", "float", may_be_empty=True),
            Setting("latency.slow_ms", "Slow down above ms a request", "float", may_be_empty=True),
            Setting("latency.slowest_mib", "Never slower than MiB/s", "float"),
            Setting("latency.interval", "Look every seconds", "float"),
        ),
    ),
    (
        "Coverage and reports",
        "",
        (
            Setting("coverage.objective", "Hours within which every machine is to have a restore point", "float"),
            Setting("reports.keep", "Reports of job runs that are kept"),
        ),
    ),
    (
        "The appliance itself",
        "Its configuration, keys and databases as restore points.",
        (
            Setting("protect.enabled", "Protect the appliance itself", "bool"),
            Setting("protect.last", "So many are kept"),
            Setting("protect.monthly", "And one a month, for months"),
            Setting("protect.catalog", "With the catalog", "bool"),
        ),
    ),
    (
        "Sessions",
        "When people have to sign in again.",
        (
            Setting("sessions.idle_minutes", "After so many minutes without a click", "float"),
            Setting("sessions.session_hours", "After so many hours in any case", "float"),
        ),
    ),
)


def form(values: Changeable, *, editable: bool) -> Markup:
    """All sections, filled in."""
    said = values.model_dump(mode="json")
    cards = [
        card(
            title,
            tag("p", about, cls="lf-dim") if about else None,
            tag("div", *(_control(one, _at(said, one.path), editable=editable) for one in settings), cls="lf-pair"),
        )
        for title, about, settings in SECTIONS
    ]
    save = None
    if editable:
        save = tag("div", tag("button", "Save settings", type="submit", cls="lf-btn primary"), cls="lf-inline")
    return tag("form", *cards, save, data_act="save", cls="lf-gapped lf-settings")


def _control(one: Setting, value: Any, *, editable: bool) -> Markup:
    identity = f"s-{one.path}"
    if one.kind == "bool" and not one.choices:
        box = tag(
            "input", type="checkbox", name=one.path, value="on", checked=bool(value), id=identity, disabled=not editable
        )
        return tag("div", tag("label", join(box, one.title)), cls="lf-field")
    if one.choices:
        options = [tag("option", words, value=each, selected=each == value) for each, words in one.choices]
        control = tag("select", *options, id=identity, name=one.path, disabled=not editable)
    else:
        number = one.kind in ("int", "float")
        shown = ", ".join(value) if isinstance(value, list) else "" if value is None else _plain(value)
        control = tag(
            "input",
            type="number" if number else "text",
            step="any" if one.kind == "float" else None,
            id=identity,
            name=one.path,
            value=shown,
            required=not one.may_be_empty,
            disabled=not editable,
            placeholder="not set" if one.may_be_empty else None,
        )
    return field(one.title, control, for_=identity, help_=one.help or None)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found[part]
    return found


def filled_in(before: Changeable, act: Act) -> dict[str, Any]:
    """The values with what the form says; whatever has no field there stays as it is. What is no number is left to the API to
    refuse."""
    values: dict[str, Any] = before.model_dump(mode="json")
    for _, _, settings in SECTIONS:
        for one in settings:
            *way, last = one.path.split(".")
            _at(values, ".".join(way))[last] = _value(one, act)
    return values


def _value(one: Setting, act: Act) -> Any:
    said = act.one(one.path).strip()
    if one.choices or one.kind == "text":
        return said
    if one.kind == "bool":
        return bool(said)
    if one.kind == "list":
        return [each.strip() for each in said.split(",") if each.strip()]
    if not said and one.may_be_empty:
        return None
    try:
        return int(said) if one.kind == "int" else float(said)
    except ValueError:
        return said
