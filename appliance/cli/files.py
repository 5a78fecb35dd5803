"""``lanfree files``: the files inside restore points."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import typer

from appliance import operations
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, table, when
from mounter.extract import into_directory, to_stream
from mounter.ports import shown
from proxy.errors import FilesNotIndexed, RestorePointNotFound
from proxy.units import format_size

files = typer.Typer(no_args_is_help=True, help="Files inside restore points: index, list, find, get.")
app.add_typer(files, name="files")

Point = Annotated[str, typer.Argument(metavar="POINT", help="Restore point; the beginning of its id is enough.")]


@files.command("index")
def index(points: Annotated[list[str], typer.Argument(metavar="POINT...", help="Restore points.")]) -> None:
    """Record the names of all files of restore points, so that they can be searched."""
    with CONTEXT.services() as services, CONTEXT.running(services) as (workflows, _):
        reports = [workflows.index(services.repository.point(point).id) for point in points]
    CONTEXT.output.result(
        reports[0] if len(reports) == 1 else reports,
        *(f"{report.point}: {report.entries} entries recorded" for report in reports),
    )
    for report in reports:
        for problem in report.problems:
            CONTEXT.output.warn(f"{report.point}: {problem}")
    if any(report.problems for report in reports):
        raise typer.Exit(ATTENTION)


@files.command("ls")
def list_directory(
    point: Point, path: Annotated[str, typer.Argument(help="As the guest names it: /etc, C:/Users")] = "/"
) -> None:
    """List a directory: from the catalog where the files are recorded, else by opening the restore point."""
    wanted = path.encode(errors="surrogateescape")
    with CONTEXT.services() as services:
        found = services.repository.point(point)
        try:
            with services.catalog.transaction(write=False) as unit:
                entries: Sequence[_Listable] = unit.files.list_directory(found.id, wanted)
                unread = [v for v in unit.files.volumes(found.id) if v.problem]
        except (FilesNotIndexed, RestorePointNotFound):
            CONTEXT.output.note("its files are not recorded: opening the restore point, which takes a moment")
            with services.mount(found) as session:
                entries = session.list_directory(wanted)
                unread = []
    _show(entries)
    for volume in unread:
        CONTEXT.output.warn(
            f"{volume.device} ({volume.mountpoint or 'not mounted'}) could not be read: {volume.problem}"
        )
    if not entries and unread:
        raise typer.Exit(ATTENTION)


@files.command("find")
def find(
    pattern: Annotated[str, typer.Argument(help="Part of a path, or a glob (*.conf); case does not matter.")],
    machine: Annotated[str | None, typer.Option(help="Only this machine, by name or identity.")] = None,
    point: Annotated[str | None, typer.Option(help="Only this restore point.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
) -> None:
    """Search recorded files of all machines and restore points; shows the newest version of each."""
    with CONTEXT.services() as services:
        identity = operations.points_of(services, machine)[-1].machine if machine else None
        only = services.repository.point(point).id if point else None
        machines = {p.machine: p.machine_name for p in services.repository.points()}
        with services.catalog.transaction(write=False) as unit:
            try:
                found = unit.files.find(pattern, machine=identity, point=only, limit=limit + 1)
            except RestorePointNotFound:  # the repository has it, so it is the catalog that does not
                raise FilesNotIndexed(only or "") from None
            unsearched = len(unit.restore_points.not_indexed())
    rows = [
        (machines.get(f.machine, f.machine), shown(f.path), format_size(f.size), _moment(f.mtime_ns), f.last_point)
        for f in found[:limit]
    ]
    columns = ("MACHINE", "PATH", "SIZE", "CHANGED", "NEWEST RESTORE POINT")
    CONTEXT.output.result(found[:limit], table(*columns, rows=rows))
    if len(found) > limit:
        CONTEXT.output.warn(f"only the first {limit} are shown; --limit shows more")
    if unsearched and only is None:
        CONTEXT.output.note(f"{unsearched} restore points are not searched: their files are not recorded")


@files.command("get")
def get(
    point: Point,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="As the guest names them.")],
    to: Annotated[Path | None, typer.Option(help="Directory for the files; one file goes to stdout without.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Restore files from inside a restore point: byte by byte, each whole or not at all."""
    if to is None and (len(paths) > 1 or CONTEXT.output.as_json):
        raise typer.BadParameter("say with --to where the files shall go")
    with CONTEXT.services() as services, services.mount(services.repository.point(point)) as session:
        names = [path.encode(errors="surrogateescape") for path in paths]
        if to is None:
            to_stream(session, names[0], sys.stdout.buffer)
            return
        to.mkdir(parents=True, exist_ok=True)
        done = [into_directory(session, name, to, overwrite=overwrite) for name in names]
    rows = [(shown(os.fsencode(d.target or "")), format_size(d.size), d.sha256) for d in done]
    CONTEXT.output.result(done, table("RESTORED TO", "SIZE", "SHA-256", rows=rows))


class _Listable(Protocol):
    """What both sources of a listing tell: ``FileVersion`` of the catalog, ``FileEntry`` of an opened restore point."""

    @property
    def name(self) -> bytes: ...
    @property
    def type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def link_target(self) -> bytes | None: ...


def _show(entries: Sequence[_Listable]) -> None:
    rows = [
        (
            e.type,
            f"{e.mode:04o}",
            f"{e.uid}:{e.gid}",
            format_size(e.size),
            _moment(e.mtime_ns),
            shown(e.name) + (f" -> {shown(e.link_target)}" if e.link_target else ""),
        )
        for e in entries
    ]
    CONTEXT.output.result(entries, table("TYPE", "MODE", "OWNER", "SIZE", "CHANGED", "NAME", rows=rows))


def _moment(nanoseconds: int) -> str:
    """Guests set times as they like, also such that no calendar has."""
    try:
        return when(datetime.fromtimestamp(nanoseconds / 1e9, UTC))
    except (ValueError, OverflowError, OSError):
        return "out of range"
