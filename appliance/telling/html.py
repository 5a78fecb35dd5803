"""A job run as a single HTML file: no script, no other file, nothing from the network; light and dark.

What can come from a guest's owner (names of machines, messages) is escaped by the template engine, and a policy in the page
forbids scripts and loading of anything, should that ever fail.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from api.templates import Templates
from appliance.telling import charts, impact
from appliance.telling.report import JobRunReport
from appliance.telling.text import NAME, counted, duration, one_line
from catalog.jobs.values import TaskState
from proxy.units import format_rate, format_size

# Hosts and places in the tables of what the run cost; those that were least concerned are left out.
COSTS = 40

_DIRECTORY = Path(__file__).parent / "templates"


@cache
def _templates() -> Templates:
    return Templates(
        _DIRECTORY,
        {
            "size": lambda count: "-" if count is None else format_size(count),
            "took": duration,
            "name": lambda text: one_line(text, NAME),
            "line": one_line,
            "share": lambda value: "-" if value is None else f"{100 * value:.0f} %",
            "latency": lambda value: "-" if value is None else f"{1000 * value:.1f} ms",
        },
    )


def rendered(report: JobRunReport, now: datetime) -> str:
    """The page. Times in the job's zone; ``now`` for what still runs."""
    zone = ZoneInfo(report.run.policy.zone)
    sums = report.figures

    def local(moment: datetime | None, form: str = "%Y-%m-%d %H:%M") -> str:
        return "-" if moment is None else moment.astimezone(zone).strftime(form)

    return _templates().rendered(
        "report.html.j2",
        report=report,
        run=report.run,
        sums=sums,
        counts=report.counts,
        states=[state for state in TaskState if report.counts[state]],
        attention=report.attention,
        rate=format_rate(sums.bytes_read, report.seconds or 0.0),
        timeline=charts.timeline(report, now),
        throughput=charts.throughput([*report.earlier, sums]),
        savings=charts.savings([*report.earlier, sums]),
        hosts=impact.hosts(report.items),
        places=impact.places(report.items),
        shown=COSTS,
        local=local,
        counted=counted,
        made_at=now,
    )
