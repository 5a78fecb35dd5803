"""``lanfree impact``: what backups cost the hosts, and how hosts and places do now."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import Fitting, table, zoned
from appliance.jobs import measured
from appliance.jobs.measured import WHEN, part
from catalog.jobs.values import Task
from proxy.ports import HostLoad, Load, PlaceLoad
from proxy.units import format_rate, format_size

# Seconds between two looks at counters that only grow: short enough to wait for, long enough for a few requests.
LOOK = 3.0


@app.command("impact")
def impact(
    machine: Annotated[str, typer.Option("--machine", "-m", help="Of this machine: its name or identity.")] = "",
    run: Annotated[str, typer.Option("--run", help="Of this job run ('lanfree job history').")] = "",
    last: Annotated[int, typer.Option("--last", min=1, max=10000, help="So many of the newest backups.")] = 20,
    now: Annotated[bool, typer.Option("--now", help="What the hosts' counters say at this moment instead.")] = False,
) -> None:
    """What each backup cost: bytes that crossed the host, stages and the bottleneck, the host and its places before, during
    and after it. With --now: latencies by which to choose the thresholds of [latency]."""
    if now:
        _now()
        return
    with CONTEXT.services() as services, services.jobs.transaction(write=False) as unit:
        tasks = measured.newest(unit, machine, run, last)
    document = [
        {
            "machine": task.machine_name,
            "identity": task.machine,
            "host": task.host,
            "run": task.run,
            "job_run": task.job_run,
            "ended_at": task.ended_at,
            "measures": task.measures,
        }
        for task in tasks
    ]
    CONTEXT.output.result({"backups": document}, *_human(tasks))


def _human(tasks: Sequence[Task]) -> Iterator[RenderableType]:
    if not tasks:
        yield "no job has backed up anything yet that was measured"
        return
    rows = [_row(task) for task in tasks]
    columns = (
        "MACHINE",
        zoned("ENDED"),
        "HOST",
        "READ",
        "STORED",
        "OVER HOST",
        "COPYING",
        "SLOWEST",
        "FROZEN",
        "CPU",
        "LATENCY",
    )
    yield Fitting(*columns, rows=rows, drop=("HOST", "STORED", "FROZEN", "COPYING", "CPU", "OVER HOST", "SLOWEST"))
    yield "CPU of the host and latency of the worst place: before > during > after the backup"


def _row(task: Task) -> tuple[str, ...]:
    measures = task.measures
    stages, seen = part(measures, "stages"), part(measures, "impact")
    return (
        task.machine_name,
        f"{task.ended_at.astimezone():%m-%d %H:%M}" if task.ended_at else "-",
        task.host,
        *(_size(measures.get(name)) for name in ("bytes_read", "bytes_stored", "over_host")),
        _seconds(stages.get("seconds")),
        str(stages.get("bottleneck") or "-"),
        _seconds(measures.get("frozen_seconds")),
        _three(part(seen, "cpu"), lambda share: f"{100 * share:.0f} %"),
        _three(_worst(part(seen, "places")), lambda seconds: f"{1000 * seconds:.1f} ms"),
    )


def _worst(places: Mapping[str, Any]) -> Mapping[str, float | None]:
    """The highest latency of any place, reading or writing, at each time."""
    worst: dict[str, float | None] = {}
    for time_ in WHEN:
        values = [
            known
            for place in places.values()
            for name in ("read_latency", "write_latency")
            if (known := part(place, name).get(time_)) is not None
        ]
        worst[time_] = max(values, default=None)
    return worst


def _three(times: Mapping[str, Any], shown: Any) -> str:
    values = [times.get(name) for name in WHEN]
    if all(value is None for value in values):
        return "-"
    return " > ".join("?" if value is None else shown(value) for value in values)


def _size(value: object) -> str:
    return format_size(value) if isinstance(value, int) else "-"


def _seconds(value: object) -> str:
    return f"{value:.1f} s" if isinstance(value, int | float) else "-"


def _now() -> None:
    with CONTEXT.services() as services:
        meters = services.hypervisor.meters()
        load = meters.read()
        if not load.places:
            time.sleep(LOOK)
            load = meters.read()
        latency = services.settings.latency
        limits = {place: latency.of(place) for place in load.places}
    document = {
        "at": load.at,
        "seconds": load.seconds,
        "hosts": load.hosts,
        "places": {place: {**_place(seen), "thresholds_ms": limits[place]} for place, seen in load.places.items()},
        "silent": load.silent,
    }
    CONTEXT.output.result(document, *_loads(load, limits))
    for host, why in load.silent.items():
        CONTEXT.output.warn(f"{host} cannot be measured: {why}")


def _loads(load: Load, limits: Mapping[str, tuple[float, float] | None]) -> Iterator[RenderableType]:
    if not (load.hosts or load.places):
        yield "no host tells anything"
        return
    yield table("HOST", "CPU", "RECEIVES", "SENDS", "COUNTED", rows=[_host(*each) for each in load.hosts.items()])
    rows = [
        (
            place,
            f"{seen.reads:.0f}/s",
            _latency(seen.read_latency),
            f"{seen.writes:.0f}/s",
            _latency(seen.write_latency),
            "-" if (known := limits.get(place)) is None else f"{known[0]:g} / {known[1]:g} ms",
        )
        for place, seen in sorted(load.places.items())
    ]
    yield table("PLACE", "READS", "LATENCY", "WRITES", "LATENCY", "HOLD / SLOW", rows=rows)


def _host(name: str, seen: HostLoad) -> tuple[str, ...]:
    cpu = "-" if seen.cpu is None else f"{100 * seen.cpu:.0f} %"
    rates = ("-" if rate is None else format_rate(int(rate), 1.0) for rate in (seen.received, seen.sent))
    return (name, cpu, *rates, "its interfaces" if seen.network == "host" else "its guests'")


def _place(seen: PlaceLoad) -> dict[str, object]:
    return {
        "reads": seen.reads,
        "writes": seen.writes,
        "read_latency": seen.read_latency,
        "write_latency": seen.write_latency,
    }


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"
