"""``lanfree vm`` and ``lanfree backup``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from appliance import operations
from appliance.cli.app import CONTEXT, app
from appliance.cli.index_report import warnings
from appliance.cli.output import ATTENTION, exit_code, gravest, local, table, zoned
from appliance.cli.points import summary
from proxy.backup import BackupRequest
from proxy.errors import Cancelled, ConfigurationError, HostUnreachable, LanfreeError, StopAll
from proxy.model import Disk, QuiescePolicy, RestorePoint, RunId, VirtualMachine
from proxy.units import format_size

if TYPE_CHECKING:
    from appliance.wiring import Services
    from appliance.workflows import Workflows


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """How one machine's run ended: with a restore point, or with an error."""

    machine: str
    run: RunId
    point: RestorePoint | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """About its files: the backup is whole, and nobody has to get up for them."""
    error: LanfreeError | None = None

    def document(self) -> dict[str, object]:
        """For ``--json``."""
        failure = (
            {"code": self.error.code, "message": self.error.message, "hint": self.error.hint} if self.error else None
        )
        return {
            "machine": self.machine,
            "run": self.run,
            "point": self.point,
            "problems": self.problems,
            "remarks": self.remarks,
            "error": failure,
        }


vm = typer.Typer(no_args_is_help=True, help="Machines as the hypervisor hosts show them.")
app.add_typer(vm, name="vm")


@vm.command("list")
def list_machines() -> None:
    """Every machine of every host, by identity, with its disks and what cannot be backed up."""
    with CONTEXT.services() as services:
        machines = sorted(services.hypervisor.machines(), key=lambda m: (m.name, m.id))
        silent = services.hypervisor.unreachable()
        protected = {m: p.created_at for m, p in operations.newest_points(services).items()}
    rows = [
        (m.name, m.state.value, m.host, _last(protected.get(m.id)), "; ".join(_disk(d) for d in m.disks), m.id)
        for m in machines
    ]
    columns = ("MACHINE", "STATE", "HOST", zoned("LAST BACKUP"), "DISKS", "IDENTITY")
    document = {"machines": machines, "unreachable": silent, "protected": protected}
    CONTEXT.output.result(document, table(*columns, rows=rows))
    for host, why in silent.items():
        CONTEXT.output.warn(f"host {host} does not answer: {why}")
    if silent:
        raise typer.Exit(ATTENTION)


def _last(moment: datetime | None) -> str:
    return "never" if moment is None else local(moment)


def _disk(disk: Disk) -> str:
    if disk.excluded is not None:
        return f"{disk.key}: not backed up, {disk.excluded.code.value}"
    return f"{disk.key} {format_size(disk.size) if disk.size else '?'} {disk.format.value}"


@app.command()
def backup(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MACHINE]...", help="Names or identities.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every machine that the hosts show.")] = False,
    full: Annotated[bool, typer.Option(help="Read everything (only what differs is stored anyway).")] = False,
    quiesce: Annotated[QuiescePolicy | None, typer.Option(help="What to ask of the guest.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Disk to leave out, by key (vdb).")] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(help="vSphere: machines by rule, as 'folder=Prod, tag=backup:gold'. Any of several."),
    ] = None,
    besides: Annotated[list[str] | None, typer.Option("--except", help="vSphere: but none that fit this rule.")] = None,
    index: Annotated[
        bool | None,
        typer.Option("--index/--no-index", help="Record the files of each new restore point ([files] index)."),
    ] = None,
) -> None:
    """Make a restore point of each machine, one after the other; one that fails does not keep the others from theirs."""
    if bool(names) + every + bool(select) != 1 or (besides and not select):
        raise typer.BadParameter("name machines, or say --all, or choose them with --select (and --except)")
    with CONTEXT.services() as services, CONTEXT.running(services) as (workflows, _):
        wanted = _selected(services, select, besides or ()) if select else _wanted(services, names or ())
        policy = quiesce or services.settings.backup.quiesce
        record = services.settings.files.index if index is None else index
        outcomes: list[BackupOutcome] = []
        for name, machine in wanted:
            run = operations.new_run("b")
            if isinstance(machine, LanfreeError):
                outcomes.append(BackupOutcome(name, run, error=machine))
            elif CONTEXT.cancelled.is_set():
                outcomes.append(BackupOutcome(name, run, error=Cancelled(f"backup of {name}")))
            elif outcomes and isinstance(stop := outcomes[-1].error, StopAll):
                outcomes.append(BackupOutcome(name, run, error=stop))  # it would end the same way
            else:
                request = BackupRequest(run, machine.id, policy, full, frozenset(exclude or ()))
                outcomes.append(_one(workflows, machine, request, index=record))
    _report(outcomes)


def _wanted(services: "Services", names: Sequence[str]) -> list[tuple[str, VirtualMachine | LanfreeError]]:
    """The named machines, or all; a name that is none does not keep the others from their backups, and a host that is
    silent is a failure of its own: nobody knows what it has."""
    found: list[tuple[str, VirtualMachine | LanfreeError]] = []
    if not names:
        found += [(machine.name, machine) for machine in services.hypervisor.machines()]
        silent = services.hypervisor.unreachable()
        found += [(f"machines of host {host}", HostUnreachable(host, why)) for host, why in silent.items()]
    for name in names:
        try:
            found.append((name, operations.machine_named(services, name)))
        except LanfreeError as error:
            found.append((name, error))
    # A host's silence is told last and does not end the others' backups.
    return sorted(found, key=lambda one: isinstance(one[1], LanfreeError))


def _selected(
    services: "Services", include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[str, VirtualMachine | LanfreeError]]:
    """Resolved now: a machine that came into the folder since the last run is in, one that left it is not."""
    if services.vcenters is None:
        raise ConfigurationError("--select", "rules choose among the machines of vCenters, and none is configured")
    machines, idle = services.vcenters.select(include, exclude)
    for rule in idle:
        CONTEXT.output.warn(f"no machine fits {rule}")
    return [(machine.name, machine) for machine in machines]


def _one(workflows: "Workflows", machine: VirtualMachine, request: BackupRequest, *, index: bool) -> BackupOutcome:
    with CONTEXT.output.progress(machine.name) as sink:
        try:
            result = workflows.back_up(request, sink)
        except LanfreeError as error:
            return BackupOutcome(machine.name, request.run, error=error)
    outcome = BackupOutcome(machine.name, request.run, result.point, result.problems)
    if index:
        try:
            report = workflows.index(result.point.id)
            return replace(outcome, remarks=tuple(warnings(report)))
        except LanfreeError as error:
            # The backup is good without its files' names; they can be recorded later.
            return replace(outcome, remarks=(f"its files are not recorded: {error.message}",))
    return outcome


def _report(outcomes: Sequence[BackupOutcome]) -> None:
    points = [outcome.point for outcome in outcomes if outcome.point]
    failed = [(outcome, outcome.error) for outcome in outcomes if outcome.error]
    if len(outcomes) == 1 and failed:
        raise failed[0][1]
    CONTEXT.output.result([outcome.document() for outcome in outcomes], *(summary(point) for point in points))
    for outcome in outcomes:
        for problem in (*outcome.problems, *outcome.remarks):
            CONTEXT.output.warn(f"{outcome.machine}: {problem}")
    for outcome, error in failed:
        CONTEXT.output.warn(f"{outcome.machine}: {error.message} ({error.hint})" if error.hint else error.message)
    if failed:
        raise typer.Exit(gravest(exit_code(error) for _, error in failed))
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(ATTENTION)
