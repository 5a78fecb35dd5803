"""``lanfree export``: restore points as disks, for other programs."""

import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from appliance import exporting
from appliance.auditing import audit
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, when
from mounter.export import OVERLAY_LIMIT, CopyOnWrite, Served
from proxy.errors import Cancelled, LanfreeError
from proxy.model import RestorePoint
from proxy.units import GiB, MiB, format_size

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# Not /tmp, which is memory on many machines.
OVERLAYS = Path("/var/tmp")  # noqa: S108  nbdkit makes its file there with a random name and unlinks it at once

Point = Annotated[str, typer.Argument(metavar="POINT", help="Restore point; the beginning of its id is enough.")]


def span(text: str) -> timedelta:
    """``90s``, ``30m``, ``8h``, ``2d``; anything else is a usage error."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: say 90s, 30m, 8h or 2d")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


@app.command()
def export(
    point: Point,
    disk: Annotated[list[str] | None, typer.Option(help="Only this disk, by its key; may be said again.")] = None,
    cow: Annotated[bool, typer.Option("--cow", help="Let clients write; what they wrote is gone at the end.")] = False,
    cow_limit: Annotated[float, typer.Option(min=0.01, help="GiB that clients may write to each disk.")] = (
        OVERLAY_LIMIT / GiB
    ),
    cow_directory: Annotated[Path, typer.Option(help="Where that is kept meanwhile.")] = OVERLAYS,
    directory: Annotated[Path | None, typer.Option(help="Where to make the private directory of sockets.")] = None,
    lasting: Annotated[
        str, typer.Option("--for", metavar="TIME", help="End by itself after 30m, 8h, 2d; else with Ctrl-C.")
    ] = "",
) -> None:
    """Serve the disks of a restore point over NBD, for qemu-img, nbdcopy, nbdfuse, until it is ended with Ctrl-C or
    SIGTERM. Read-only; with --cow clients may write, for a database that wants to recover. Holes stay holes, every byte
    is checked against what was stored, and nothing of the restore point is collected meanwhile."""
    seconds = span(lasting) if lasting else None
    writable = CopyOnWrite(cow_directory, int(cow_limit * GiB / MiB) * MiB) if cow else None
    trouble: list[LanfreeError] = []

    def tell(problem: LanfreeError) -> None:
        trouble.append(problem)
        CONTEXT.output.warn(problem.message + (f" ({problem.hint})" if problem.hint else ""))

    with CONTEXT.services() as services:
        found = services.repository.point(point)
        images = exporting.chosen(services, found, disk or ())
        audit(services, "export", found, disks=[image.key for image in images], writable=cow)
        try:
            with exporting.exported(services, found, images, cow=writable, directory=directory) as served:
                _show(found, served.served, writable=cow)
                exporting.keep(served, seconds, services.cancelled, tell)
        except Cancelled:
            pass  # how it is meant to end
    if trouble:
        raise typer.Exit(ATTENTION)


def _show(point: RestorePoint, served: Sequence[Served], *, writable: bool) -> None:
    """At once, also into a pipe: whoever started us waits for it."""
    sizes = {image.key: image.size for image in point.images}
    disks = [{"disk": s.key, "size": sizes[s.key], "uri": s.uri, "writable": writable} for s in served]
    CONTEXT.output.result({"point": point.id, "machine": point.machine_name, "disks": disks})
    if not CONTEXT.output.as_json:
        for s in served:  # no table, which would break long lines: these are for copying
            CONTEXT.output.say(f"{s.key}  {format_size(sizes[s.key])}  {s.uri}")
    CONTEXT.output.note(f"{point.machine_name} as of {when(point.created_at)}; Ctrl-C ends it")
    sys.stdout.flush()
