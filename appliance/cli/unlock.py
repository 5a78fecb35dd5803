"""``lanfree unlock``: keys of encrypted volumes, kept for a machine's restore points."""

from pathlib import Path
from typing import Annotated

import typer

from appliance import operations
from appliance.auditing import audit
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import local, table, zoned
from appliance.unlock import secret_of
from mounter.keys import Key

unlock = typer.Typer(no_args_is_help=True, help="Keys of encrypted volumes (LUKS, BitLocker), kept for a machine.")
app.add_typer(unlock, name="unlock")

Machine = Annotated[str, typer.Argument(metavar="MACHINE", help="By name or identity; it must have a restore point.")]


@unlock.command("add")
def add(
    machine: Machine,
    secret_file: Annotated[
        Path, typer.Option(help="File (mode 0600) with a passphrase, a BitLocker recovery key, or a key file itself.")
    ],
    volume: Annotated[
        str, typer.Option(help="Only for this volume: its UUID, or its device as 'files ls' names it.")
    ] = "",
) -> None:
    """Keep a key, sealed with the repository's key. It is tried when a restore point of the machine is opened for files."""
    key = Key(volume, secret_of(secret_file))
    with CONTEXT.services() as services:
        identity = operations.points_of(services, machine)[-1].machine
        audit(services, "unlock", machine=identity, change="add", volume=volume)
        kept = services.unlock.add(identity, key, services.clock.now())
    CONTEXT.output.result(kept, f"key {kept.id} is kept for {machine} ({volume or 'every encrypted volume'})")


@unlock.command("list")
def list_keys(machine: Machine) -> None:
    """Which keys are kept; the secrets are not shown."""
    with CONTEXT.services() as services:
        kept = services.unlock.kept(operations.points_of(services, machine)[-1].machine)
    rows = [(key.id, key.volume or "every encrypted volume", local(key.added_at)) for key in kept]
    CONTEXT.output.result(kept, table("KEY", "VOLUME", zoned("KEPT SINCE"), rows=rows))


@unlock.command("remove")
def remove(machine: Machine, key: Annotated[str, typer.Argument(help="As 'lanfree unlock list' names it.")]) -> None:
    """Forget a key."""
    with CONTEXT.services() as services:
        identity = operations.points_of(services, machine)[-1].machine
        audit(services, "unlock", machine=identity, change="remove", key=key)
        if not services.unlock.remove(identity, key):
            raise typer.BadParameter(f"no key {key} is kept for {machine}")
    CONTEXT.output.result({"key": key, "removed": True}, f"key {key} is forgotten")
