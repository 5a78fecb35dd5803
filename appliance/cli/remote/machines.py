"""``lanfree --server URL vm list`` and ``backup``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from api.client import Client
from api.schemas.machines import Machine
from api.schemas.tasks import Task
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, Fitting, exit_code, gravest, local, zoned
from appliance.cli.remote.asking import at
from appliance.cli.remote.following import Wait, at_its_end, ending, followed
from proxy.errors import ConfigurationError, LanfreeError, NoSuchMachine
from proxy.model import QuiescePolicy
from proxy.units import format_size

vm = typer.Typer(no_args_is_help=True, help="Machines as that appliance knows them.")
app.add_typer(vm, name="vm")


@vm.command("list")
def list_machines() -> None:
    """Every machine, by identity: where it is, how it is protected, and when it was backed up."""
    with CONTEXT.asking() as server:
        machines = list(server.items(Machine, "/machines", limit=1000))
    rows = [
        (
            m.name,
            m.state.value if m.state else "-",
            m.host,
            m.protection.value,
            local(m.newest_at) if m.newest_at else "never",
            m.points,
            format_size(m.size) if m.size else "?",
            m.id,
        )
        for m in machines
    ]
    columns = ("MACHINE", "STATE", "HOST", "PROTECTION", zoned("LAST BACKUP"), "POINTS", "DISKS", "IDENTITY")
    shown = Fitting(*columns, rows=rows, drop=("DISKS", "POINTS", "STATE", "HOST"))
    CONTEXT.output.result([m.model_dump(mode="json") for m in machines], shown)


@app.command()
def backup(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MACHINE]...", help="Names or identities.")] = None,
    full: Annotated[bool, typer.Option(help="Read everything (only what differs is stored anyway).")] = False,
    quiesce: Annotated[QuiescePolicy | None, typer.Option(help="What to ask of the guest.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Disk to leave out, by key (vdb).")] = None,
    index: Annotated[
        bool | None,
        typer.Option("--index/--no-index", help="Record the files of each new restore point ([files] index)."),
    ] = None,
    wait: Wait = True,
) -> None:
    """Make a restore point of each machine. All are asked for at once: limits there say how many run together."""
    if not names:
        raise typer.BadParameter("name machines; many are what a job is for")
    order = {"full": full, "quiesce": quiesce, "exclude": exclude or [], "index": index}
    with CONTEXT.asking() as server:
        if len(names) == 1:
            followed(server, _asked_for(server, names[0], order), wait=wait)
            return
        begun: list[Task] = []
        refused: list[LanfreeError] = []
        for name in names:
            try:
                begun.append(_asked_for(server, name, order))
            except LanfreeError as error:  # the others get their backups all the same
                refused.append(error)
        _several(server, begun, refused, wait=wait)


def _asked_for(server: Client, name: str, order: Mapping[str, Any]) -> Task:
    return server.post(Task, at("machines", machine_of(server, name).id, "backups"), order, key=server.new_key())


def machine_of(server: Client, name: str) -> Machine:
    """By identity or by name. Raises ``NoSuchMachine``, ``ConfigurationError`` where a name is not unique."""
    found = [m for m in server.items(Machine, "/machines", q=name) if name in (m.id, m.name)]
    exact = [m for m in found if m.id == name] or found
    if not exact:
        raise NoSuchMachine(name)
    if len(exact) > 1:
        raise ConfigurationError(name, f"{len(exact)} machines have this name", hint="give the identity instead")
    return exact[0]


def _several(server: Client, begun: Sequence[Task], refused: Sequence[LanfreeError], *, wait: bool) -> None:
    """``refused``: why others were not begun. What went wrong first counts for the exit code, then what needs attention."""
    tasks = [at_its_end(server, task) for task in begun] if wait else begun
    lines = [
        f"{one.title}: {one.state.value}" + (f", {one.error.code}: {one.error.message}" if one.error else "")
        for one in tasks
    ]
    CONTEXT.output.result([one.model_dump(mode="json") for one in tasks], *lines)
    for one in tasks:
        for problem in one.problems:
            CONTEXT.output.warn(f"{one.title}: {problem}")
    for error in refused:
        CONTEXT.output.warn(
            f"not begun: {error.message} ({error.hint})" if error.hint else f"not begun: {error.message}"
        )
    codes = [exit_code(error) for error in refused] + ([ending(one) for one in tasks] if wait else [])
    if any(codes):
        raise typer.Exit(gravest(codes) or ATTENTION)
