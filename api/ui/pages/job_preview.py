"""What a policy means: the machines that it selects now, the coming nights, what retention would keep."""

from api.schemas.jobs import Fire, JobPreview, PlanPreview, RetentionPreview
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import machine_page
from api.ui.parts.blocks import note
from api.ui.parts.chips import chip, label
from api.ui.visit import Visit
from api.ui.words import count, duration, plain, size

_NAMED = 8
_FIRES = 5


def drawn(visit: Visit, found: JobPreview) -> Markup:
    """All of it."""
    remarks = [
        note("To be mended" if r.kind == "gap" else "Perhaps not meant", r.text, tone="warn") for r in found.remarks
    ]
    silent = [
        note(f"{one.where} does not answer", one.why, "Its machines are not counted.", tone="warn")
        for one in found.silent
    ]
    return join(*remarks, *silent, _machines(found), _nights(visit, found), _kept(visit, found.retention))


def _machines(found: JobPreview) -> Markup:
    said = tag("h3", f"Selects {count(found.chosen, 'machine')} now, {size(found.bytes)} of disks")
    if not found.chosen:
        return join(
            said, tag("p", "Nothing fits these rules; machines that come to fit later are taken then.", cls="lf-dim")
        )
    rows = [
        tag(
            "li",
            tag("a", one.name, href=machine_page(one.id)),
            " ",
            label(one.host),
            tag("span", f" {size(one.size)}", cls="lf-dim"),
        )
        for one in found.machines
    ]
    shown = tag("ul", *rows[:_NAMED])
    rest = rows[_NAMED:]
    more = (
        tag("details", tag("summary", f"{found.chosen - _NAMED} more"), tag("ul", *rest), cls="lf-more")
        if rest
        else None
    )
    idle = (
        tag("p", chip("attention", said="These rules fit nothing"), " ", ", ".join(found.idle)) if found.idle else None
    )
    out = (
        tag("p", f"{count(found.excluded_count, 'machine')} left out by an exclusion", cls="lf-dim")
        if found.excluded_count
        else None
    )
    return join(said, shown, more, idle, out)


def _nights(visit: Visit, found: JobPreview) -> Markup:
    if not found.fires:
        return join(tag("h3", "Coming nights"), tag("p", "No schedule: it runs when somebody lets it.", cls="lf-dim"))
    fires = tag("ul", *(tag("li", _fire(visit, fire)) for fire in found.fires[:_FIRES]))
    window = tag("p", f"Backup window: {found.window}", cls="lf-small") if found.window else None
    refused = tag("p", f"No plan: {found.plan_refused}", cls="lf-dim") if found.plan_refused else None
    plan = _plan(visit, found.plan) if found.plan is not None else refused
    return join(tag("h3", "Coming nights"), fires, window, plan)


def _fire(visit: Visit, fire: Fire) -> Markup:
    if fire.skipped:
        why = fire.waits.detail or plain(fire.waits.code) if fire.waits else "skipped"
        return join(tag("s", fire.local), " ", chip("skipped", said=why))
    later = f", begins {visit.clock.time(fire.begins)}" if fire.begins and fire.begins != fire.at else ""
    why = f" ({fire.waits.detail or plain(fire.waits.code)})" if fire.waits else ""
    return join(tag("b", fire.local), tag("span", f"{later}{why}", cls="lf-dim"))


def _plan(visit: Visit, plan: PlanPreview) -> Markup:
    if plan.begin is None or plan.end is None:
        return tag("p", f"Nothing of it begins within {duration(plan.hours * 3600)}.", cls="lf-dim")
    lines = [
        tag(
            "p",
            f"First backup {visit.clock.time(plan.begin)}, last one done about {visit.clock.time(plan.end)}; "
            f"{count(plan.planned, 'backup')} planned.",
        )
    ]
    if plan.unfit:
        lines.append(
            note(
                f"{count(plan.unfit, 'machine')} find no place in the window",
                ", ".join(plan.unfit_named),
                "Widen the window, or begin earlier.",
                tone="warn",
            )
        )
    if plan.night.end is not None and plan.before.end is not None and plan.night.end > plan.before.end:
        later = duration((plan.night.end - plan.before.end).total_seconds())
        lines.append(tag("p", f"All jobs together are done {later} later than without it.", cls="lf-dim"))
    return join(*lines)


def _kept(visit: Visit, kept: RetentionPreview) -> Markup:
    whose = {"job": "of this job", "configuration": "of the configuration", "none": ""}[kept.of]
    said = f"{kept.rules} ({whose})" if whose else "No rule: everything is kept."
    rows = [
        tag("li", visit.clock.when(one.at), tag("span", f" {', '.join(one.by)}", cls="lf-dim")) for one in kept.kept
    ]
    points = tag(
        "details",
        tag("summary", f"{count(len(rows), 'restore point')} kept of {kept.runs} runs"),
        tag("ul", *rows),
        cls="lf-more",
    )
    return join(tag("h3", "Retention"), tag("p", said), points if rows else None)
