"""``lanfree --server URL impact``."""

from typing import Annotated

import typer

from api.schemas.impact import BackupImpact, Impact, ImpactNow, PlaceImpact, Times
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import Fitting, table, zoned
from appliance.cli.remote.machines import machine_of
from proxy.units import format_rate, format_size


@app.command("impact")
def impact(
    machine: Annotated[str, typer.Option("--machine", "-m", help="Of this machine: its name or identity.")] = "",
    run: Annotated[str, typer.Option("--run", help="Of this job run ('job history').")] = "",
    last: Annotated[int, typer.Option("--last", min=1, max=1000, help="So many of the newest backups.")] = 20,
    now: Annotated[bool, typer.Option("--now", help="What the hosts' counters say at this moment instead.")] = False,
) -> None:
    """What each backup cost: bytes that crossed the host, the bottleneck, the host and its places before, during and after."""
    with CONTEXT.asking() as server:
        if now:
            _now(server.get(ImpactNow, "/impact/now"))
            return
        identity = machine_of(server, machine).id if machine else None
        seen = server.get(Impact, "/impact", machine=identity, run=run, last=last)
    rows = [_row(one) for one in seen.items]
    columns = (
        "MACHINE", zoned("ENDED"), "HOST", "READ", "STORED", "OVER HOST", "SLOWEST", "FROZEN", "CPU", "LATENCY"
    )  # fmt: skip
    shown = Fitting(*columns, rows=rows, drop=("HOST", "STORED", "FROZEN", "CPU", "OVER HOST", "SLOWEST"))
    nothing = "no job has backed up anything yet that was measured"
    CONTEXT.output.result(seen.model_dump(mode="json"), shown if rows else nothing)


def _row(one: BackupImpact) -> tuple[str, ...]:
    worst = max((t for place in one.places for t in _latencies(place)), key=lambda t: t.during or 0.0, default=None)
    return (
        one.name,
        f"{one.ended_at.astimezone():%m-%d %H:%M}" if one.ended_at else "-",
        one.host,
        *("-" if size is None else format_size(size) for size in (one.bytes_read, one.bytes_stored, one.over_host)),
        one.bottleneck or "-",
        "-" if one.frozen_seconds is None else f"{one.frozen_seconds:.2f} s",
        _three(one.cpu, 100, " %"),
        "-" if worst is None else _three(worst, 1000, " ms"),
    )


def _latencies(place: PlaceImpact) -> tuple[Times, Times]:
    return place.read_latency, place.write_latency


def _three(times: Times, factor: float, unit: str) -> str:
    values = (times.before, times.during, times.after)
    if all(value is None for value in values):
        return "-"
    return " > ".join("?" if value is None else f"{factor * value:.1f}{unit}" for value in values)


def _now(seen: ImpactNow) -> None:
    hosts = [
        (
            h.host,
            "-" if h.cpu is None else f"{100 * h.cpu:.0f} %",
            *(
                "-" if rate is None else format_rate(round(rate * seen.seconds), seen.seconds)
                for rate in (h.received, h.sent)
            ),
        )
        for h in seen.hosts
    ]
    places = [
        (
            p.place,
            f"{p.reads:.0f}",
            f"{p.writes:.0f}",
            *("-" if t is None else f"{1000 * t:.1f} ms" for t in (p.read_latency, p.write_latency)),
            "-" if p.hold is None else f"{p.hold:g} / {p.slow:g} ms",
        )
        for p in seen.places
    ]
    CONTEXT.output.result(
        seen.model_dump(mode="json"),
        table("HOST", "CPU", "RECEIVED", "SENT", rows=hosts),
        table("PLACE", "READS/S", "WRITES/S", "READ TAKES", "WRITE TAKES", "HOLD / SLOW", rows=places),
    )
    for silence in seen.silent:
        CONTEXT.output.warn(f"{silence.where} does not answer: {silence.why}")
