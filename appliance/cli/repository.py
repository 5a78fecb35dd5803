"""``lanfree prune``, ``collect``, ``copy``, ``repair``, ``audit``, ``report``, ``rescue``: the repository kept in shape."""

from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.keeping_tables import audit_lines, prune_table, repair_lines
from appliance.cli.output import ATTENTION, exit_code, local, table, zoned
from appliance.cli.shared_options import CopyFrom, CopyTo, MadeSince, Newest, OnlyMachines, OnlyPoints, ReadBack
from appliance.keeping import copying, lines, maintenance, pruning
from proxy.errors import IntegrityError
from proxy.repository import rescue as rescuing
from proxy.repository.collection.collected import CollectReport
from proxy.repository.selection import Selection
from proxy.units import format_size

_REPOSITORY = Annotated[str, typer.Option(metavar="NAME", help="In the [[copy_to]] of this name, not in our own.")]


@app.command()
def prune(
    apply: Annotated[bool, typer.Option("--apply", help="Delete what no rule keeps. Without, only show it.")] = False,
    repository: _REPOSITORY = "",
) -> None:
    """Show which restore points the rules of jobs and of the configuration keep and why, and with --apply delete the others.
    Never a machine's last good one, none that is held or in use. Their space comes back with 'lanfree collect'."""
    with CONTEXT.services() as services:
        found = pruning.prune(services, apply=apply, told=CONTEXT.output.warn, repository=repository)
    stuck = apply and any(not p.keep and not p.removed for p in found)
    CONTEXT.output.result(found, prune_table(map(lines.pruned, found)))
    if stuck:
        raise typer.Exit(ATTENTION)


@app.command()
def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, name what would go.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, help="Minutes to wait so that this call finishes what it began.")
    ] = 0.0,
    despite_missing: Annotated[
        bool, typer.Option(help="Go on although chunks that restore points need are lost for good.")
    ] = False,
    repository: _REPOSITORY = "",
) -> None:
    """Give back the space that no restore point needs. Safe beside running backups, and in two phases: what one call finds
    goes with a later one, when nobody can count on it any more."""
    from proxy.repository.collection.collect import collect as run  # noqa: PLC0415  # brings numpy, which other commands do without

    with CONTEXT.services() as services, maintenance.opened(services, repository) as place:
        report = run(place, dry_run=dry_run, patience=60 * patience, despite_missing=despite_missing)
    CONTEXT.output.result(report, *_told(report))
    if report.missing:
        raise typer.Exit(ATTENTION)


@app.command("copy")
def copy_points(
    name: CopyTo = "",
    source: CopyFrom = "",
    machine: OnlyMachines = None,
    point: OnlyPoints = None,
    newest: Newest = None,
    since: MadeSince = None,
    read_back: ReadBack = False,
    make: Annotated[bool, typer.Option(help="Make the second repository if it is not there.")] = False,
) -> None:
    """Copy restore points to a second repository, or from another site's: only chunks that are not there, under its own
    key. Killed, the next call goes on."""
    if bool(name) == bool(source):
        raise typer.BadParameter("say either to which repository, or --from which")
    if source and make:
        raise typer.BadParameter("--make is for a second repository; 'lanfree init' makes our own")
    wanted = Selection(
        machines=frozenset(machine or ()),
        points=tuple(point or ()),
        newest=newest,
        since=since.replace(tzinfo=UTC) if since else None,
    )
    with CONTEXT.services() as services, CONTEXT.output.progress("copy") as sink:
        cancelled = services.cancelled.is_set
        done = (
            copying.pull_run(services, source, wanted, read_back=read_back, cancelled=cancelled, progress=sink)
            if source
            else copying.copy_run(
                services, name, wanted, read_back=read_back, make=make, cancelled=cancelled, progress=sink
            )
        ).copied
    rows = [
        (c.machine_name, c.point, c.outcome.value, format_size(c.bytes_read), format_size(c.bytes_stored), c.why)
        for c in done
    ]
    CONTEXT.output.result(done, table("MACHINE", "RESTORE POINT", "", "READ", "STORED", "WHY", rows=rows))
    if any(c.outcome.value == "failed" for c in done):
        raise typer.Exit(ATTENTION)


@app.command()
def repair(
    name: Annotated[str, typer.Argument(help="The [[copy_to]] that holds copies.")],
    point: Annotated[str | None, typer.Option(help="Only this restore point.")] = None,
) -> None:
    """Verify, and mend what is damaged with what a second repository has. Says what stays damaged."""
    from appliance.keeping.repairing import repair_run  # noqa: PLC0415

    with CONTEXT.services() as services:
        mended = repair_run(services, name, point, cancelled=services.cancelled.is_set)
    CONTEXT.output.result(mended, *repair_lines([lines.repaired(each) for each in mended]))
    if any(r.why for r in mended):
        raise typer.Exit(exit_code(IntegrityError("", "")))


@app.command()
def audit(
    noted: Annotated[list[Path] | None, typer.Option(help="A file of notes that a witness kept.")] = None,
    publish: Annotated[bool, typer.Option(help="Let the configured witnesses note the newest restore points.")] = False,
) -> None:
    """Show restore points that were removed or altered by somebody without the key: signatures, chains, witnesses."""
    with CONTEXT.services() as services:
        result = maintenance.audited(services, noted or (), publish=publish)
    for line in result.unpublished:
        CONTEXT.output.warn(f"not noted by {line}")
    found = [lines.finding(each) for each in result.findings]
    CONTEXT.output.result(result, *audit_lines(found, result.notes, result.unreadable, result.published))
    if result.tampered:
        raise typer.Exit(exit_code(IntegrityError("", "")))
    if result.unpublished:
        raise typer.Exit(ATTENTION)


@app.command()
def report() -> None:
    """What the repository holds, by machine: logical, unique and stored bytes, deduplication, compression, dead space."""
    from proxy.repository.checking.report import make_report  # noqa: PLC0415

    with CONTEXT.services() as services:
        found = make_report(services.repository)
    rows = [
        (
            m.machine_name,
            m.points,
            local(m.newest),
            format_size(m.logical),
            format_size(m.unique),
            format_size(m.compressed),
            format_size(m.exclusive),
            f"{m.deduplication:.1f}",
            f"{m.compression:.1f}",
        )
        for m in found.machines
    ]
    columns = ("MACHINE", "POINTS", zoned("NEWEST"), "LOGICAL", "UNIQUE", "STORED", "ITS OWN", "DEDUP", "COMPR")
    total = found.total
    in_all: dict[str, object] = asdict(total)
    in_all |= {"dead": total.dead, "deduplication": total.deduplication, "compression": total.compression}
    CONTEXT.output.result(
        {"total": in_all, "machines": found.machines},
        table(*columns, rows=rows),
        f"in all: {format_size(total.logical)} logical, {format_size(total.unique)} unique, {format_size(total.stored)} stored "
        f"in {total.packs} packs and what leads to them, {format_size(total.dead)} dead",
    )


@app.command()
def rescue() -> None:
    """Print the program that reads a repository without Lanfree: one Python file and three libraries. Keep it with the key."""
    typer.echo(rescuing.source(), nl=False)


def _told(report: CollectReport) -> list[str]:
    would = "would be " if report.dry_run else ""
    lines = [
        f"{report.points} restore points looked at",
        f"{format_size(report.freed)} {would}freed: {len(report.deleted)} objects",
        f"{format_size(max(report.promised, 0))} {would}given back by a later call: {len(report.doomed)} objects that nobody "
        f"needs, {len(report.compacted)} packs rewritten",
    ]
    lines += [f"waiting: {waiting.why}" for waiting in report.waiting]
    if report.missing:
        lines.append(
            f"{len(report.missing)} chunks that restore points need are in no pack: run 'lanfree verify'; nothing is deleted"
        )
    return lines
