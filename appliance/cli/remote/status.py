"""``lanfree --server URL status``."""

from collections.abc import Iterator
from datetime import UTC, datetime

import typer
from rich.console import RenderableType

from api.schemas.overview import Overview, RunningNow
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, soon, table, zoned
from appliance.overview import ago


@app.command("status")
def status() -> None:
    """What goes on now. Exit code 7 when something needs attention."""
    with CONTEXT.asking() as server:
        seen = server.get(Overview, "/overview")
    CONTEXT.output.result(seen.model_dump(mode="json"), *_human(seen))
    for line in seen.attention:
        CONTEXT.output.warn(line.text)
    if seen.attention:
        raise typer.Exit(ATTENTION)


def _human(seen: Overview) -> Iterator[RenderableType]:
    running = [
        (
            one.name or f"({one.kind})",
            one.job or "by hand",
            one.host,
            one.proxy,
            "-" if one.share is None else f"{100 * one.share:.0f} %",
            ago((seen.at - one.since).total_seconds()) if one.since else "-",
            _how(one),
        )
        for one in seen.running
    ]
    yield table("RUNNING", "JOB", "HOST", "PROXY", "DONE", "FOR", "", rows=running) if running else "nothing runs"
    if seen.waiting.total:
        held = [f"{each.tasks} for {each.key}" for each in seen.waiting.held_up]
        yield f"{seen.waiting.total} tasks wait{': ' if held else ''}{'; '.join(held)}"
    now = datetime.now(UTC)
    if seen.next:
        coming = [
            (each.job, soon(each.at, now) + (f", begins {soon(each.opens, now)}" if each.opens else ""))
            for each in seen.next
        ]
        yield table("JOB", zoned("NEXT"), rows=coming)
    silent = f", {seen.proxies_silent} silent" if seen.proxies_silent else ""
    yield f"{seen.proxies_alive} proxies serve{silent}; {seen.jobs} jobs"


def _how(one: RunningNow) -> str:
    said = ["reads everything"] if one.full else []
    said += [f"attempt {one.attempt}"] if one.attempt > 1 else []
    said += [one.kind] if one.kind != "backup" else []
    return ", ".join(said)
