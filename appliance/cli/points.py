"""``lanfree points``, ``lanfree verify`` and ``lanfree restore``."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appliance import operations
from appliance.auditing import audit
from appliance.cli import shared_options as options
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, Fitting, exit_code, harmless, local, table, zoned
from appliance.cli.restore_places import place_in, renamed_in
from appliance.keeping import maintenance
from appliance.keeping.maintenance import Standing
from appliance.wiring import Services
from proxy.errors import AuditFailed, IntegrityError
from proxy.model import ImageInfo, RestorePoint
from proxy.ports import DiskPlace, NewMachine
from proxy.restore import RestoreRequest, RestoreResult
from proxy.units import format_rate, format_size


@app.command("points")
def list_points(
    name: Annotated[str | None, typer.Argument(metavar="[MACHINE]", help="Name or identity.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Show the reasons of every decision.")] = False,
) -> None:
    """The restore points, oldest first. Every one of them restores like a full."""
    with CONTEXT.services() as services:
        points = operations.points_of(services, name)
        damaged = services.repository.damaged_points()
        stand = maintenance.standings(services, points)
    for each in damaged:
        CONTEXT.output.warn(f"a restore point cannot be read: {each.object}: {each.why}")
    if why:
        CONTEXT.output.result(_documents(points, stand), *(summary(point) for point in points))
        raise typer.Exit(ATTENTION if damaged else 0)
    rows = [
        (
            p.id,
            p.machine_name,
            local(p.created_at),
            p.level.value,
            p.consistency.value,
            ",".join(sorted({i.transport for i in p.images})),
            format_size(sum(i.size for i in p.images)),
            format_size(sum(i.bytes_read for i in p.images)),
            format_size(sum(i.bytes_stored for i in p.images)),
            stand[p.id],
        )
        for p in points
    ]
    columns = (
        "RESTORE POINT",
        "MACHINE",
        zoned("TAKEN"),
        "LEVEL",
        "CONSISTENCY",
        "OVER",
        "DISKS",
        "READ",
        "STORED",
        "VERIFIED",
    )
    shown = Fitting(*columns, rows=rows, drop=("OVER", "DISKS", "LEVEL", "READ", "STORED", "CONSISTENCY", "VERIFIED"))
    CONTEXT.output.result(_documents(points, stand), shown)
    if damaged:
        raise typer.Exit(ATTENTION)


def _documents(points: Sequence[RestorePoint], stand: Mapping[str, Standing]) -> list[dict[str, object]]:
    return [{**asdict(point), "standing": stand[point.id]} for point in points]


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[POINT]", help="Restore point; all without.")] = None,
    share: options.Share = 1.0,
    max_age: Annotated[
        float, typer.Option(min=0, help="Days: what was read and right since then is not read again.")
    ] = 0.0,
    deep: options.Deep = True,
) -> None:
    """Read every chunk back and check it. Names machine, restore point, disk and offset of everything that is damaged.
    Killed, it goes on where it was when it is called again with --max-age."""
    depth = operations.Depth(share, timedelta(days=max_age), deep)
    with CONTEXT.services() as services, CONTEXT.output.progress("verify") as sink:
        report = operations.verify_points(services, name, sink, depth)
    rows = [
        (d.machine_name, d.point, d.disk or "all", d.offset if d.offset is not None else "all", d.object, d.why)
        for d in report.damage
    ]
    good = f"{report.points} restore points, {format_size(report.bytes_checked)} read and checked, no damage"
    shown = table("MACHINE", "RESTORE POINT", "DISK", "OFFSET", "OBJECT", "WHY", rows=rows) if rows else good
    CONTEXT.output.result(report, shown)
    if report.damage:
        raise typer.Exit(exit_code(IntegrityError("", "")))


@app.command()
def restore(
    point: options.Point,
    disk: options.Places,
    host: options.OnHost = "",
    new_name: options.NewName = "",
    overwrite: options.OverPlaces = False,
    connected: options.Connected = False,
    disks_only: options.DisksOnly = False,
    without_host: options.WithoutHosts = None,
    unidentified: options.Unidentified = False,
    differential: options.Differential = False,
    compare: options.Compare = True,
    folder: options.Folder = "",
    pool: options.Pool = "",
    network: options.Networks = None,
    attach: options.Attach = "",
) -> None:
    """Write a machine's disks (LUNs over the SAN, datastores through vSphere), read them back, compare, and define the machine,
    powered off."""
    with CONTEXT.services() as services, CONTEXT.running(services, urgent=True) as (workflows, _):
        wanted = services.repository.point(point)
        places = {key: _reached(services, place) for key, place in map(place_in, disk)}
        machine = NewMachine(
            name=new_name or wanted.machine_name,
            host=host or wanted.host,
            disks=places,
            identity=operations.new_identity() if new_name else None,
            connected=connected,
            without_hosts=frozenset(without_host or ()),
            folder=folder,
            pool=pool,
            networks=dict(map(renamed_in, network or ())),
        )
        request = RestoreRequest(
            run=operations.new_run("r"),
            point=wanted.id,
            machine=machine,
            overwrite=overwrite,
            define=not (disks_only or attach),
            attach=operations.machine_named(services, attach).id if attach else None,
            unidentified=unidentified,
            differential=differential,
            compare=compare,
        )
        if services.vcenters is not None:
            for line in services.vcenters.left_out(request, wanted):
                CONTEXT.output.warn(f"not restored: {line}")
        _record(services, wanted, machine)
        with CONTEXT.output.progress("restore") as sink:
            result = workflows.restore(request, sink)
    _tell(result)


def _record(services: Services, point: RestorePoint, machine: NewMachine) -> None:
    """In the audit log. Unlike the reading of files, the rescue of a machine does not wait for a log that is broken."""
    places = {key: str(place) for key, place in machine.disks.items()}
    try:
        audit(services, "restore-machine", point, name=machine.name, host=machine.host, disks=places)
    except AuditFailed as error:
        CONTEXT.output.warn(f"this restore is not in the audit log: {error.message}")


def _tell(result: RestoreResult) -> None:
    rows = [
        (
            d.key,
            d.device,
            format_size(d.size),
            format_size(d.bytes_written),
            format_rate(d.bytes_written, d.seconds),
            "equal" if d.compared else "not compared",
        )
        for d in result.disks
    ]
    defined = (
        f"machine {result.machine.name} is defined on {result.machine.host}, powered off" if result.machine else ""
    )
    if result.attached:
        defined = f"it is disk {result.attached} of the machine now"
    columns = ("DISK", "WRITTEN TO", "SIZE", "DATA", "SPEED", "DIGEST")
    CONTEXT.output.result(result, table(*columns, rows=rows), defined)


def _reached(services: Services, place: DiskPlace) -> DiskPlace:
    return replace(place, portal=operations.portal_of(services, place.target)) if place.target else place


def summary(point: RestorePoint) -> RenderableType:
    """One restore point with the figures of its disks and the reasons of all decisions."""
    head = Text.assemble(
        (harmless(point.machine_name), "bold"),
        f"  {point.id}  {point.level.value}, {point.consistency.value} consistent, "
        f"guest frozen {point.frozen_seconds:.2f} s",
    )
    rows = [_image_row(image) for image in point.images]
    reasons = [*point.reasons, *(reason for image in point.images for reason in image.reasons)]
    lines = [f"  {r.code.value}{': ' + r.detail if r.detail else ''}" for r in reasons]
    columns = ("  DISK", "SIZE", "READ", "NEW", "STORED", "OF DISK", "OVER", "FROM")
    return Group(head, table(*columns, rows=rows), table("  WHY", rows=[(line,) for line in lines]))


def _image_row(image: ImageInfo) -> tuple[object, ...]:
    return (
        f"  {image.key}",
        format_size(image.size),
        format_size(image.bytes_read),
        format_size(image.bytes_new),
        format_size(image.bytes_stored),
        f"{100 * image.bytes_read / image.size:.1f} %" if image.size else "-",
        image.transport,
        image.source,
    )
