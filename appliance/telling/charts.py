"""Charts of a job run as SVG that stands in an HTML page: colours come from the page (``--done``, ``--failed``), so that they
follow light and dark. All text is escaped: names of machines come from whoever may name a machine.

::

    at once   ▁▃▅▇▇▅▃▁           how many tasks ran
    esx-01    ▬▬▬▬ ▬▬▬▬▬▬▬       one bar a task, in lanes where they overlap,
              ▬▬▬▬▬▬             a band a host
    esx-02    ▬▬▬ ▬▬▬▬
              22:00   23:00      in the job's time zone
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from appliance.telling.report import Item, JobRunReport, RunFigures
from appliance.telling.text import duration, one_line
from proxy.units import format_rate, format_size

WIDTH, LEFT, RIGHT = 960, 130, 14
_INNER = WIDTH - LEFT - RIGHT

# Bars of a timeline: browsers draw so many at once, and more than one a pixel shows nothing. The gravest and longest are drawn.
DRAWN = 3_000

# Pixels of a lane: legible when there are few, a pattern when there are hundreds.
_LANE_FEW, _LANE_MANY, _FEW = 12, 5, 30

_TICKS = [timedelta(minutes=m) for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080)]


@dataclass(frozen=True, slots=True)
class _Span:
    item: Item
    begin: datetime
    end: datetime


def timeline(report: JobRunReport, now: datetime) -> Markup:
    """Every task that ran, by host; empty when none did."""
    spans = list(_spans(report, now))
    if not spans:
        return Markup("")
    left_out = max(0, len(spans) - DRAWN)
    if left_out:
        order = {"failed": 0, "stopped": 1, "running": 2}
        spans.sort(key=lambda s: (order.get(s.item.task.state, 3), s.begin - s.end))
        spans = spans[:DRAWN]
    first, last = min(s.begin for s in spans), max(s.end for s in spans)
    axis = _Axis(first, max(last, first + timedelta(seconds=1)), ZoneInfo(report.run.policy.zone))
    bars: list[Markup] = []
    top = 56.0
    bands = _bands(spans)
    height = _LANE_FEW if sum(len(lanes) for _, lanes in bands) <= _FEW else _LANE_MANY
    for host, lanes in bands:
        bars += _band(host, lanes, axis, top, height)
        top += len(lanes) * height + 10
    remark = f"The {DRAWN} gravest and longest; {left_out} short ones are not drawn." if left_out else ""
    return _svg(
        f"Tasks of the run over time, by host. {remark}",
        top + 24,
        [*_at_once(spans, axis), *axis.drawn(56, top), *bars],
    )


def _spans(report: JobRunReport, now: datetime) -> Iterator[_Span]:
    for item in report.items:
        begin = item.task.claimed_at
        if begin is not None:
            yield _Span(item, begin, max(begin, item.task.ended_at or now))


class _Axis:
    """Time from left to right."""

    def __init__(self, first: datetime, last: datetime, zone: ZoneInfo) -> None:
        self.first, self.last, self.zone = first, last, zone
        self._seconds = (last - first).total_seconds()

    def x(self, moment: datetime) -> float:
        return LEFT + _INNER * (moment - self.first).total_seconds() / self._seconds

    def drawn(self, top: float, bottom: float) -> Iterator[Markup]:
        step = next((tick for tick in _TICKS if (self.last - self.first) / tick <= 10), timedelta(days=30))
        form = "%H:%M" if step < timedelta(days=1) else "%d %b"
        midnight = self.first.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        # Counted in UTC from the midnight before: over a change of daylight-saving time the ticks stay evenly apart.
        moment = midnight.astimezone(UTC)
        moment += step * ((self.first - moment) // step + 1)
        while moment <= self.last:
            x = self.x(moment)
            yield Markup('<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2:.0f}"/>').format(x, top, bottom)
            label = moment.astimezone(self.zone).strftime(form)
            yield Markup('<text class="label" x="{:.1f}" y="{:.0f}" text-anchor="middle">{}</text>').format(
                x, bottom + 15, label
            )
            moment += step


def _bands(spans: Sequence[_Span]) -> list[tuple[str, list[list[_Span]]]]:
    """By host, each with as few lanes as keep bars from lying over each other."""
    hosts: dict[str, list[_Span]] = {}
    for span in spans:
        hosts.setdefault(span.item.task.host or "repository", []).append(span)
    bands = []
    for host, found in sorted(hosts.items()):
        lanes: list[list[_Span]] = []
        for span in sorted(found, key=lambda s: (s.begin, s.end)):
            lane = next((lane for lane in lanes if lane[-1].end <= span.begin), None)
            if lane is None:
                lanes.append([span])
            else:
                lane.append(span)
        bands.append((host, lanes))
    return bands


def _band(host: str, lanes: Sequence[Sequence[_Span]], axis: _Axis, top: float, height: int) -> Iterator[Markup]:
    yield Markup('<text class="label" x="{}" y="{:.0f}" text-anchor="end">{}</text>').format(
        LEFT - 8, top + 10, one_line(host, 18)
    )
    for number, lane in enumerate(lanes):
        for span in lane:
            x = axis.x(span.begin)
            took = duration((span.end - span.begin).total_seconds())
            title = f"{one_line(span.item.name, 80)}: {span.item.task.state}, {took}"
            yield Markup(
                '<rect class="{}" x="{:.1f}" y="{:.0f}" width="{:.1f}" height="{}" rx="1"><title>{}</title></rect>'
            ).format(
                span.item.task.state.value, x, top + number * height, max(1.5, axis.x(span.end) - x), height - 1, title
            )


def _at_once(spans: Sequence[_Span], axis: _Axis) -> Iterator[Markup]:
    """Steps: how many ran at each moment."""
    changes: dict[datetime, int] = {}
    for span in spans:
        changes[span.begin] = changes.get(span.begin, 0) + 1
        changes[span.end] = changes.get(span.end, 0) - 1
    running, levels = 0, [(axis.first, 0)]
    for moment, change in sorted(changes.items()):
        running += change
        levels.append((moment, running))
    most = max(1, *(level for _, level in levels))
    points = [f"{LEFT},44"]
    before = 0
    for moment, level in levels:
        x = axis.x(moment)
        points += [f"{x:.1f},{44 - 36 * before / most:.1f}", f"{x:.1f},{44 - 36 * level / most:.1f}"]
        before = level
    yield Markup('<polygon class="area" points="{} {},44"/>').format(" ".join(points), WIDTH - RIGHT)
    yield Markup('<text class="label" x="{}" y="20" text-anchor="end">at once, most {}</text>').format(LEFT - 8, most)


def throughput(runs: Sequence[RunFigures]) -> Markup:
    """Bytes read a second of each run, oldest left."""

    def rate(run: RunFigures) -> float:
        return run.bytes_read / run.seconds if run.seconds else 0.0

    most = max((rate(run) for run in runs), default=0.0)
    if most <= 0:
        return Markup("")

    def column(run: RunFigures, x: float, width: float) -> Iterator[Markup]:
        height = 120 * rate(run) / most
        title = (
            f"{run.at:%Y-%m-%d %H:%M} UTC, {run.state}: {format_rate(run.bytes_read, run.seconds or 0.0)}, "
            f"{format_size(run.bytes_read)} in {duration(run.seconds)}, {run.machines} machines"
        )
        yield _column("failed" if run.failed else "done", title, x=x, y=140 - height, width=width, height=height)

    return _columns("Bytes read a second, by run", runs, format_rate(int(most), 1.0), column)


def savings(runs: Sequence[RunFigures]) -> Markup:
    """What of each run's bytes had to be stored, and what deduplication and compression saved."""
    shown = [run for run in runs if run.bytes_read > 0]
    if not shown:
        return Markup("")

    def column(run: RunFigures, x: float, width: float) -> Iterator[Markup]:
        if run.bytes_read <= 0:
            return
        stored = min(run.bytes_stored, run.bytes_read)
        new = min(max(run.bytes_new, stored), run.bytes_read)
        top = 20.0
        for name, words, count in (
            ("known", "known already", run.bytes_read - new),
            ("packed", "saved by compression", new - stored),
            ("stored", "stored", stored),
        ):
            height = 120 * count / run.bytes_read
            title = f"{run.at:%Y-%m-%d %H:%M} UTC: {format_size(count)} of {format_size(run.bytes_read)} {words}"
            yield _column(name, title, x=x, y=top, width=width, height=height)
            top += height

    return _columns("Of all bytes read: known already, saved by compression, stored", runs, "100 %", column)


def _columns(
    title: str, runs: Sequence[RunFigures], top: str, column: Callable[[RunFigures, float, float], Iterator[Markup]]
) -> Markup:
    pitch = min(60.0, _INNER / len(runs))
    parts = [
        Markup('<line class="tick" x1="{}" x2="{}" y1="140" y2="140"/>').format(LEFT, WIDTH - RIGHT),
        Markup('<line class="tick" x1="{}" x2="{}" y1="20" y2="20"/>').format(LEFT, WIDTH - RIGHT),
        Markup('<text class="label" x="{}" y="24" text-anchor="end">{}</text>').format(LEFT - 8, top),
        Markup('<text class="label" x="{}" y="144" text-anchor="end">0</text>').format(LEFT - 8),
    ]
    for number, run in enumerate(runs):
        x = LEFT + number * pitch
        parts += column(run, x + pitch * 0.15, pitch * 0.7)
        parts.append(
            Markup('<text class="label" x="{:.1f}" y="158" text-anchor="middle">{}</text>').format(
                x + pitch / 2, f"{run.at:%d %b}"
            )
        )
    return _svg(title, 166, parts)


def _column(name: str, title: str, *, x: float, y: float, width: float, height: float) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(name, x, y, width, height, title)


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg role="img" viewBox="0 0 {} {:.0f}" aria-label="{}">').format(WIDTH, height, escape(title))
    return head + Markup("\n").join(parts) + Markup("</svg>")
