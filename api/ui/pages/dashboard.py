"""What an administrator looks at in the morning: what needs them, what the night did, what is not protected, how space goes."""

from collections.abc import Callable, Sequence
from functools import partial

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.coverage import Coverage, CoveredMachine
from api.schemas.overview import MachineBar, Night, Overview, RunBar, RunningNow
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import machine_page, run_page, to
from api.ui.pages.spaces import spaces
from api.ui.parts.axes import Bar, lanes
from api.ui.parts.blocks import card, empty, link_button, note, progress, tile
from api.ui.parts.charts import Series, by_day
from api.ui.parts.chips import chip, tone_of
from api.ui.parts.part import Part
from api.ui.parts.problems import said
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import count, duration, plain, rate, sentence, share, size
from proxy.errors import ServerRefused
from proxy.units import GiB, MiB

REFRESH_SECONDS = 15.0
"""Between looks while the page is open: backups take minutes, and each open tab asks."""

REST_SECONDS = 300.0
"""The same for what costs more to find out: gaps, space, charts. Dashboards are left open over night."""

LANES = 12
"""Machines drawn without asking for more: as many as fit beside the rest."""

GAPS = 8


async def build(visit: Visit) -> None:
    """Draw it, and draw again what changes."""
    top = Part()
    with ui.element("div").classes("lf-grid"):
        night = Part(cls="w8")
        beside = Part(cls="w4")
        gaps = Part(cls="w6")
        with ui.element("div").classes("w6 lf-gapped"):
            space = Part()
            charts = [_chart_card("Throughput by day")]
        with ui.element("div").classes("w6"):
            charts.append(_chart_card("Deduplication and compression by day"))
        with ui.element("div").classes("w6"):
            charts.append(_chart_card("Backups by day"))

    async def look(*, background: bool = True) -> Overview:
        overview = await visit.api.get(Overview, "/overview", background=background)
        top.show(_top(visit, overview))
        night.show(_night(visit, overview))
        beside.show(_beside(visit, overview))
        return overview

    async def rest(overview: Overview, *, background: bool = True) -> None:
        gaps.show(await _gaps(visit, overview, background=background))
        space.show(await spaces(visit, background=background))
        for place, draw in zip(charts, (_throughput, _dedup, _backups), strict=True):
            place.clear()
            with place:
                _chart(visit, overview, draw)

    async def again(*, all_of_it: bool) -> None:
        try:
            overview = await look()
        except ServerRefused as refused:
            top.show(said(refused, "The dashboard cannot be brought up to date"))
            return
        if all_of_it:
            await rest(overview)

    await rest(await look(background=False), background=False)
    ui.timer(REFRESH_SECONDS, partial(again, all_of_it=False))
    ui.timer(REST_SECONDS, partial(again, all_of_it=True), immediate=False)


def _chart_card(title: str) -> ui.element:
    """Its body, to be drawn into."""
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", title)))
        return ui.element("div").classes("lf-body")


def _chart(visit: Visit, overview: Overview, draw: Callable[[Visit, Overview], None]) -> None:
    if any(day.done for day in overview.days):
        draw(visit, overview)
    else:
        Part().show(empty("No backup has ended yet", "Figures of each day are drawn here.", sign="bar_chart"))


def _top(visit: Visit, overview: Overview) -> Markup:
    actions = (
        link_button("New job", to("/jobs/new"), kind="primary", sign="add") if visit.may(Permission.EDIT_JOBS) else None
    )
    heading = head("Dashboard", f"As of {visit.clock.time(overview.at)}, {visit.clock.name}", actions=actions)
    return tag("div", heading, _first_steps(visit, overview), _tiles(overview), cls="lf-gapped")


def _first_steps(visit: Visit, overview: Overview) -> Markup | None:
    """What to do first, as long as it was not done."""
    if not overview.protection:
        action = (
            link_button("Add a hypervisor", to("/hypervisors"), kind="primary", sign="dns")
            if visit.may(Permission.CONFIGURE)
            else None
        )
        return card(
            "First steps",
            empty(
                "No machines are known yet",
                "Add a hypervisor: Lanfree then lists its machines.",
                action=action,
                sign="dns",
            ),
        )
    if not overview.jobs:
        action = (
            link_button("Create a job", to("/jobs/new"), kind="primary", sign="event")
            if visit.may(Permission.EDIT_JOBS)
            else None
        )
        return card(
            "First steps",
            empty(
                "Nothing is protected yet",
                "Create a job: it says which machines are backed up, and when.",
                action=action,
                sign="event",
            ),
        )
    if not overview.proxies_alive:
        return note(
            "No proxy is alive", "Nothing is backed up until one is.", "Start 'lanfree serve' on a proxy.", tone="bad"
        )
    return None


def _tiles(overview: Overview) -> Markup:
    counts = {one.status: one.machines for one in overview.protection or ()}
    total = sum(counts.values()) - counts.get("excluded", 0) - counts.get("former", 0)
    whole = "ok" if total and counts.get("protected", 0) == total else ""
    shown = [
        tile(
            f"{counts.get('protected', 0)} of {total}",
            "machines protected",
            tone=whole,
            href=to("/machines?protection=protected"),
        )
    ]
    for status, words, tone in (
        ("overdue", "overdue", "warn"),
        ("failed", "failed last", "bad"),
        ("never", "never backed up", "bad"),
    ):
        figure = counts.get(status, 0)
        shown.append(tile(str(figure), words, tone=tone if figure else "", href=to(f"/machines?protection={status}")))
    shown.append(
        tile(
            str(len(overview.running)),
            f"running, {overview.waiting.total} waiting",
            tone="run" if overview.running else "",
            href=to("/running"),
        )
    )
    week = next((one for one in overview.success if one.days == 7), None)
    if week is not None:
        tone = "" if week.share is None else "ok" if week.share > 0.99 else "warn"
        shown.append(tile(share(week.share), f"of {week.ended} backups well in 7 days", tone=tone))
    return tag("div", *shown, cls="lf-tiles")


def _night(visit: Visit, overview: Overview) -> Markup:
    night = overview.night
    span = f"{visit.clock.time(night.begin)} to {visit.clock.time(night.end)}"
    if not night.runs and not night.machines:
        nothing = empty("No job ran in these hours", "Runs are drawn here, a bar each.", sign="bedtime")
        return card("Last night's runs", nothing, right=span)
    runs = lanes(visit.clock, night.begin, night.end, _run_lanes(visit, night))
    machines = _machine_lanes(visit, night)
    drawn = [tag("h3", "Machines"), lanes(visit.clock, night.begin, night.end, machines[:LANES])] if machines else []
    rest = machines[LANES:]
    if rest:
        more = lanes(visit.clock, night.begin, night.end, rest)
        drawn.append(tag("details", tag("summary", f"{len(rest)} more"), more, cls="lf-more", data_keep="machines"))
    left_out = f"{count(night.machines_left_out, 'more backup')} not drawn" if night.machines_left_out else None
    return card(
        "Last night's runs", tag("h3", "Jobs"), runs, *drawn, tag("p", left_out, cls="lf-dim lf-small"), right=span
    )


def _run_lanes(visit: Visit, night: Night) -> list[tuple[Markup | str, list[Bar]]]:
    by_job: dict[str, list[RunBar]] = {}
    for run in night.runs:
        by_job.setdefault(run.job, []).append(run)
    return [(job, [_run_bar(visit, run) for run in runs]) for job, runs in by_job.items()]


def _run_bar(visit: Visit, run: RunBar) -> Bar:
    end = run.end or visit.clock.now()
    failed = f", {run.failed} failed" if run.failed else ""
    title = (
        f"{run.job}: {plain(run.state).lower()}, {visit.clock.time(run.begin)} to "
        f"{visit.clock.time(run.end) if run.end else 'now'}, {count(run.machines, 'task')}{failed}"
    )
    return Bar(run.begin, end, title, tone_of(run.state), run_page(run.run))


def _machine_lanes(visit: Visit, night: Night) -> list[tuple[Markup | str, list[Bar]]]:
    by_machine: dict[str, list[MachineBar]] = {}
    for bar in sorted(night.machines, key=lambda bar: (bar.state != "failed", bar.begin)):
        by_machine.setdefault(bar.machine, []).append(bar)
    return [
        (tag("a", bars[0].name, href=machine_page(machine)), [_machine_bar(visit, bar) for bar in bars])
        for machine, bars in by_machine.items()
    ]


def _machine_bar(visit: Visit, bar: MachineBar) -> Bar:
    end = bar.end or visit.clock.now()
    took = duration((end - bar.begin).total_seconds())
    error = f", {plain(bar.error).lower()}" if bar.error else ""
    title = (
        f"{bar.name} ({bar.job}): {plain(bar.state).lower()}{error}, from {visit.clock.time(bar.begin)}, {took}, "
        f"{size(bar.bytes_read)} read"
    )
    return Bar(bar.begin, end, title, tone_of(bar.state), run_page(bar.run) if bar.run else "")


def _beside(visit: Visit, overview: Overview) -> Markup:
    lines = [
        tag(
            "li",
            tag("a", sentence(line.text), href=to("/" + _page_of(line.link))) if line.link else sentence(line.text),
        )
        for line in overview.attention
    ]
    attention = tag("ul", *lines, cls="lf-list") if lines else tag("p", chip("done", said="Nothing needs you"))
    coming = [
        tag(
            "li",
            tag("b", one.job),
            " ",
            visit.clock.when(one.opens or one.at),
            tag("span", f" ({visit.clock.ago(one.opens or one.at)})", cls="lf-dim"),
        )
        for one in overview.next[:6]
    ]
    now = [tag("li", _running(one)) for one in overview.running[:5]]
    return tag(
        "div",
        tag(
            "div",
            card("Needs attention", attention, right=count(len(lines), "item") if lines else None),
            id="attention",
        ),
        card(
            "Running now",
            tag("ul", *now, cls="lf-list") if now else tag("p", "Nothing runs.", cls="lf-dim"),
            right=tag("a", "All", href=to("/running")),
        ),
        card(
            "Next runs",
            tag("ul", *coming, cls="lf-list") if coming else tag("p", "No job has a schedule.", cls="lf-dim"),
        ),
        cls="lf-gapped",
    )


def _page_of(link: str) -> str:
    """A resource of the API as the page that shows it."""
    return link.replace("job-runs/", "runs/", 1) if link.startswith("job-runs/") else link


def _running(one: RunningNow) -> Markup:
    first = tag("div", tag("b", one.name or plain(one.kind)), tag("span", f" {one.job}", cls="lf-dim"))
    figures = f"{share(one.share)} · {rate(one.bytes_per_second)}"
    return join(first, progress(one.share, f"Progress of {one.name}"), tag("div", figures, cls="lf-dim lf-small"))


async def _gaps(visit: Visit, overview: Overview, *, background: bool) -> Markup:
    if (
        not overview.protection
    ):  # the API refuses coverage where no hypervisor is configured: the first steps say what to do
        return card("Coverage gaps", tag("p", "No machine is known yet.", cls="lf-dim"))
    try:
        coverage = await visit.api.get(Coverage, "/coverage", background=background, gaps=True)
    except ServerRefused as refused:
        return card("Coverage gaps", said(refused, "Coverage is not known"))
    open_ = [machine for machine in coverage.machines if not machine.covered]
    right = f"{coverage.gaps} of {coverage.total}"
    if not open_:
        silent = (
            note("Not all was seen", *(f"{one.where}: {one.why}" for one in coverage.silent), tone="warn")
            if coverage.silent
            else None
        )
        return card("Coverage gaps", silent or tag("p", chip("done", said="Every machine is covered")), right=right)
    rows = [_gap(machine) for machine in open_[:GAPS]]
    more = (
        tag("p", tag("a", f"All {coverage.gaps} gaps", href=to("/machines?sort=severity")), style="padding:8px 12px")
        if coverage.gaps > GAPS
        else None
    )
    return card(
        "Coverage gaps", plain_table("Coverage gaps", ("Machine", "Why"), rows), more, right=right, padded=False
    )


def _gap(machine: CoveredMachine) -> Sequence[Markup | str]:
    why = "; ".join(finding.text for finding in machine.findings if finding.counts and not finding.accepted)
    return (tag("a", machine.name, href=machine_page(machine.machine)), sentence(why))


def _throughput(visit: Visit, overview: Overview) -> None:
    days = overview.days
    moved = [one.bytes_read / GiB for one in days]
    speed = [one.bytes_read / one.seconds / MiB if one.seconds else None for one in days]
    by_day(
        "Throughput by day",
        [one.day for one in days],
        (
            Series("Read, GiB", [round(one, 2) for one in moved], [size(one.bytes_read) for one in days], bar=True),
            Series(
                "Mean speed, MiB/s",
                [None if one is None else round(one, 1) for one in speed],
                [rate(one.bytes_read / one.seconds) if one.seconds else rate(None) for one in days],
                right=True,
            ),
        ),
        ("GiB", "MiB/s"),
        dark=visit.dark,
    )


def _dedup(visit: Visit, overview: Overview) -> None:
    days = overview.days
    by_day(
        "Deduplication and compression by day",
        [one.day for one in days],
        (
            Series(
                "Stored, GiB",
                [round(one.bytes_stored / GiB, 2) for one in days],
                [size(one.bytes_stored) for one in days],
                bar=True,
            ),
            Series(
                "Read for each new byte", [one.dedup for one in days], [_factor(one.dedup) for one in days], right=True
            ),
            Series(
                "New for each stored byte",
                [one.packed for one in days],
                [_factor(one.packed) for one in days],
                right=True,
            ),
        ),
        ("GiB", "times"),
        dark=visit.dark,
    )


def _backups(visit: Visit, overview: Overview) -> None:
    days = overview.days
    by_day(
        "Backups by day",
        [one.day for one in days],
        (
            Series("Done", [one.done for one in days], [str(one.done) for one in days], bar=True),
            Series("Failed", [one.failed for one in days], [str(one.failed) for one in days], bar=True, tone="bad"),
            Series("Stopped", [one.stopped for one in days], [str(one.stopped) for one in days], bar=True, tone="idle"),
        ),
        ("backups",),
        dark=visit.dark,
    )


def _factor(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
