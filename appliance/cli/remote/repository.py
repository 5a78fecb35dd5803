"""``lanfree --server URL``: ``audit``, ``catalog``, ``collect``, ``copy``, ``protect``, ``prune``, ``repair``, ``report`` and
``sweep``."""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated

import typer

from api.schemas.repositories import Repository
from api.schemas.tasks import Task
from appliance.cli.app import CONTEXT, app
from appliance.cli.keeping_tables import NOT_ENABLED, audit_lines, protect_lines, prune_table, repair_lines
from appliance.cli.output import local, table, zoned
from appliance.cli.remote.following import Result, Wait, followed
from appliance.cli.remote.machines import machine_of
from appliance.cli.remote.points import point_of
from appliance.cli.shared_options import CopyFrom, CopyTo, MadeSince, Newest, OnlyMachines, OnlyPoints, ReadBack
from proxy.units import format_size

_REPOSITORY = Annotated[str, typer.Option(metavar="NAME", help="In the [[copy_to]] of this name, not in its own.")]


@app.command()
def prune(
    apply: Annotated[bool, typer.Option("--apply", help="Delete what no rule keeps. Without, only show it.")] = False,
    repository: _REPOSITORY = "",
    wait: Wait = True,
) -> None:
    """Show which restore points the rules of jobs and of the configuration keep and why, and with --apply delete the others,
    then give their space back. Never a machine's last good one, none that is held or in use."""
    with CONTEXT.asking() as server:
        asked = server.post(Task, "/prunes", {"repository": repository, "dry_run": not apply})
        followed(server, asked, wait=wait, shown=lambda result: [prune_table(result["lines"])])


@app.command()
def repair(
    name: Annotated[str, typer.Argument(help="The [[copy_to]] that holds copies.")],
    point: Annotated[str | None, typer.Option(help="Only this restore point.")] = None,
    wait: Wait = True,
) -> None:
    """Verify, and mend what is damaged with what a second repository has. Says what stays damaged."""
    with CONTEXT.asking() as server:
        asked = {"repository": name, "point": point_of(server, point).id if point else ""}
        followed(
            server, server.post(Task, "/repairs", asked), wait=wait, shown=lambda result: repair_lines(result["lines"])
        )


@app.command()
def audit(
    publish: Annotated[bool, typer.Option(help="Let the configured witnesses note the newest restore points.")] = False,
    wait: Wait = True,
) -> None:
    """Show restore points that were removed or altered by somebody without the key: signatures, chains, witnesses."""

    def shown(result: Result) -> Sequence[object]:
        return audit_lines(result["lines"], result["notes"], result["unreadable"], result["published"])

    with CONTEXT.asking() as server:
        followed(server, server.post(Task, "/repository-audits", {"publish": publish}), wait=wait, shown=shown)


@app.command()
def protect(wait: Wait = True) -> None:
    """Bring configuration, keys, passwords and databases of that appliance into its repository and every [[copy_to]]."""

    def shown(result: Result) -> Sequence[object]:
        if not result["enabled"]:
            return [NOT_ENABLED]
        return [*protect_lines(result["lines"], result["size"], result["files"]), *result["remarks"]]

    with CONTEXT.asking() as server:
        followed(server, server.post(Task, "/protections", {}), wait=wait, shown=shown)


catalog = typer.Typer(no_args_is_help=True, help="The index of restore points and files.")
app.add_typer(catalog, name="catalog")


@catalog.command("rebuild")
def rebuild(
    files: Annotated[bool, typer.Option(help="Record the files of all restore points, too.")] = True,
    wait: Wait = True,
) -> None:
    """Make the catalog again from the repository: the list of restore points, and the files that they hold."""

    def shown(result: Result) -> Sequence[object]:
        return [f"{result['points']} restore points listed, {result['not_indexed']} without their files"]

    with CONTEXT.asking() as server:
        followed(server, server.post(Task, "/catalog-rebuilds", {"files": files}), wait=wait, shown=shown)


@app.command()
def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, name what would go.")] = False,
    repository: _REPOSITORY = "",
    wait: Wait = True,
) -> None:
    """Give back the space that no restore point needs. Safe beside running backups, and in two phases."""
    with CONTEXT.asking() as server:
        asked = {"repository": repository, "dry_run": dry_run}
        followed(server, server.post(Task, "/collections", asked), wait=wait)


@app.command("copy")
def copy_points(
    name: CopyTo = "",
    source: CopyFrom = "",
    machine: OnlyMachines = None,
    point: OnlyPoints = None,
    newest: Newest = None,
    since: MadeSince = None,
    read_back: ReadBack = False,
    wait: Wait = True,
) -> None:
    """Copy restore points to a second repository, or from another site's: only chunks that are not there."""
    if bool(name) == bool(source):
        raise typer.BadParameter("say either to which repository, or --from which")
    with CONTEXT.asking() as server:
        asked = {
            "to": name,
            "source": source,
            "machines": [machine_of(server, each).id for each in machine or ()],
            "points": [point_of(server, each).id for each in point or ()],
            "newest": newest,
            "since": since.replace(tzinfo=UTC).isoformat() if since else None,
            "read_back": read_back,
        }
        followed(server, server.post(Task, "/copies", asked), wait=wait)


@app.command()
def sweep(wait: Wait = True) -> None:
    """Remove what dead runs left on the hosts. Touches nothing that is not Lanfree's."""
    with CONTEXT.asking() as server:
        followed(server, server.post(Task, "/sweeps", {}), wait=wait)


@app.command()
def report() -> None:
    """What the repositories hold, as it was measured last: deduplication, compression, dead space."""
    with CONTEXT.asking() as server:
        found = list(server.items(Repository, "/repositories"))
    rows = [
        (
            r.name,
            r.place,
            r.points if r.points is not None else "-",
            format_size(m.logical) if (m := r.measured) else "-",
            format_size(m.stored) if m else "-",
            f"{m.deduplication:.1f}" if m else "-",
            f"{m.compression:.1f}" if m else "-",
            format_size(m.dead) if m else "-",
            local(m.at) if m else "never",
            format_size(r.space.free) if r.space else "?",
        )
        for r in found
    ]
    columns = (
        "REPOSITORY", "PLACE", "POINTS", "LOGICAL", "STORED", "DEDUP", "COMPR", "DEAD", zoned("MEASURED"), "FREE"
    )  # fmt: skip
    CONTEXT.output.result([r.model_dump(mode="json") for r in found], table(*columns, rows=rows))
    for each in found:
        if each.error:
            CONTEXT.output.warn(f"{each.name}: {each.error}")
