"""``lanfree job report``: a run as its people get it."""

from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT
from appliance.cli.job_runs import run_of
from appliance.cli.jobs import job
from appliance.cli.output import table
from appliance.telling.events import run_ended
from appliance.telling.report import Item, report_of
from appliance.telling.text import NAME, duration, one_line
from proxy.units import format_size


@job.command("report")
def report(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run, see 'lanfree job history'; or a job: its newest.")],
    html: Annotated[Path | None, typer.Option(help="Write it as a single HTML file there.")] = None,
) -> None:
    """What became of a job run: what needs attention, and every machine."""
    with CONTEXT.services() as services:
        with services.jobs.transaction(write=False) as unit:
            run = run_of(unit, name).id
        found = report_of(services.jobs, services.catalog, run)
        if html is not None:
            from appliance.telling.html import rendered  # noqa: PLC0415  # the template engine loads when it is needed

            html.write_text(rendered(found, services.clock.now()), encoding="utf-8")
    event = run_ended(found)
    columns = ("MACHINE", "STATE", "HOST", "TOOK", "READ", "STORED", "CONSISTENCY", "TRANSPORT", "BOTTLENECK")
    CONTEXT.output.result(
        {
            **event.facts,
            "kind": event.kind.value if found.run.ended_at else "running",
            "items": [_document(item) for item in found.items],
        },
        event.title.removeprefix("Lanfree: "),
        *event.lines,
        *(["", table(*columns, rows=[_row(item) for item in found.items])] if found.items else []),
        *([f"written: {html}"] if html is not None else []),
    )


def _row(item: Item) -> tuple[str, ...]:
    read, stored = item.bytes_read, item.bytes_stored
    return (
        one_line(item.name, NAME),
        item.task.state.value,
        one_line(item.task.host, NAME),
        duration(item.seconds),
        "-" if read is None else format_size(read),
        "-" if stored is None else format_size(stored),
        item.consistency or "-",
        ", ".join(item.transports) or "-",
        item.bottleneck or "-",
    )


def _document(item: Item) -> dict[str, object]:
    task = item.task
    return {
        "kind": task.kind.value,
        "machine": task.machine,
        "name": item.name,
        "host": task.host,
        "state": task.state.value,
        "attempts": task.attempt,
        "seconds": item.seconds,
        "bytes_read": item.bytes_read,
        "bytes_new": item.bytes_new,
        "bytes_stored": item.bytes_stored,
        "level": item.level,
        "consistency": item.consistency,
        "transports": list(item.transports),
        "bottleneck": item.bottleneck,
        "point": task.point,
        "error": task.error,
        "message": task.message,
        "reasons": [{"code": reason.code.value, "detail": reason.detail} for reason in item.reasons],
        "problems": list(task.problems),
    }
