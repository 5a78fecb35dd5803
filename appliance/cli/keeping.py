"""``lanfree point``: what a person may do to a single restore point."""

from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.shared_options import Point
from appliance.keeping import pruning
from appliance.keeping.maintenance import opened

point = typer.Typer(no_args_is_help=True, help="One restore point: keep it, or delete it.")
app.add_typer(point, name="point")

_REPOSITORY = Annotated[str, typer.Option(metavar="NAME", help="In the [[copy_to]] of this name, not in our own.")]
_WHY = Annotated[str, typer.Option(help="Recorded, and shown to whoever asks.")]


@point.command("hold")
def hold(name: Point, why: _WHY, repository: _REPOSITORY = "") -> None:
    """Keep a restore point from being deleted, by retention or by people, until it is released.
    A hold is of one repository: copies elsewhere have their own."""
    with CONTEXT.services() as services, opened(services, repository) as place:
        found = place.point(name)
        place.ledger.hold(found.id, why)
    CONTEXT.output.result({"point": found.id, "held": True, "why": why}, f"{found.id} of {found.machine_name} is held")


@point.command("release")
def release(name: Point, repository: _REPOSITORY = "") -> None:
    """Take the hold off."""
    with CONTEXT.services() as services, opened(services, repository) as place:
        found = place.point(name)
        place.ledger.release_hold(found.id)
    CONTEXT.output.result(
        {"point": found.id, "held": False}, f"{found.id} of {found.machine_name} is not held any more"
    )


@point.command("delete")
def delete(name: Point, why: _WHY = "asked for on the command line", repository: _REPOSITORY = "") -> None:
    """Delete a restore point. Never a machine's last good one. Its space comes back with 'lanfree collect'."""
    with CONTEXT.services() as services:
        found, remark = pruning.delete_point(services, name, why, repository)
    if remark:
        CONTEXT.output.warn(remark)
    CONTEXT.output.result({"point": found.id, "deleted": True}, f"{found.id} of {found.machine_name} is deleted")


@point.command("forget")
def forget(
    name: Annotated[str, typer.Argument(metavar="OBJECT", help="As 'lanfree points' names what it cannot read.")],
    why: _WHY = "cannot be read",
    repository: _REPOSITORY = "",
) -> None:
    """Give up a restore point whose manifest cannot be read: until then nothing can be collected."""
    with CONTEXT.services() as services, opened(services, repository) as place:
        place.ledger.forget(name, why)
    CONTEXT.output.result({"object": name, "forgotten": True}, f"{name} does not count any more")
