"""``lanfree files``: the files inside restore points."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.markup import escape

from appliance import operations
from appliance.auditing import audit
from appliance.cli import shared_options as options
from appliance.cli.app import CONTEXT, app
from appliance.cli.index_report import told, warnings
from appliance.cli.output import ATTENTION, local, table
from appliance.cli.recording import record
from appliance.file_restore import LIFETIME, STDOUT, Format, archive_target, format_of, point_with
from appliance.keeping.recorded import unrecorded
from appliance.unlock import keys_in
from catalog.patterns import Kind
from catalog.search import Query
from catalog.values import FileVersion
from mounter.extract import to_stream
from mounter.ports import shown
from mounter.restore.attributes import Attributes
from mounter.restore.directory import DirectoryTarget, Existing
from mounter.restore.tree import Options, RestoreProgress, RestoreReport, restore_files
from mounter.targets import FileTarget
from proxy.errors import FilesNotIndexed, RestorePointNotFound
from proxy.units import format_size

files = typer.Typer(no_args_is_help=True, help="Files inside restore points: index, list, find, get.")
app.add_typer(files, name="files")

if TYPE_CHECKING:
    from appliance.wiring import Services

# A person reads no more; the JSON document has all.
SHOWN = 20

# A terminal that is redrawn for every file costs more than the files.
REDRAW_SECONDS = 0.2

# Files asked for at once: one answer stays small in memory, however many are wanted.
PAGE = 1000


KeyFiles = Annotated[
    list[Path] | None,
    typer.Option("--key-file", help="Passphrase or key (file of mode 0600) for encrypted volumes, beside those kept."),
]


@files.command("index")
def index(
    points: Annotated[
        list[str] | None, typer.Argument(metavar="POINT...", help="Restore points; none: all that are not recorded.")
    ] = None,
) -> None:
    """Record the names of all files of restore points, so that they can be searched."""
    with CONTEXT.services() as services:
        wanted = [services.repository.point(point).id for point in points] if points else unrecorded(services)
        reports, failed = record(services, wanted)
    if len(wanted) == 1 and failed:
        raise failed[wanted[0]]
    CONTEXT.output.result(
        reports[0] if len(wanted) == 1 else reports,
        *(line for report in reports for line in told(report)),
    )
    if failed or any(any(warnings(report)) for report in reports):
        raise typer.Exit(ATTENTION)


@files.command("ls")
def list_directory(
    point: options.Point,
    path: Annotated[str, typer.Argument(help="As the guest names it: /etc, C:/Users")] = "/",
    key_file: KeyFiles = None,
) -> None:
    """List a directory: from the catalog where the files are recorded, else by opening the restore point."""
    wanted = path.encode(errors="surrogateescape")
    with CONTEXT.services() as services:
        found = services.repository.point(point)
        keys = keys_in(key_file)
        audit(services, "browse", found, path=shown(wanted))
        try:
            if keys:
                raise FilesNotIndexed(found.id)  # what they open is not in what was recorded without them
            with services.catalog.transaction(write=False) as unit:
                entries: Sequence[_Listable] = unit.files.list_directory(found.id, wanted)
                unread = [v for v in unit.files.volumes(found.id) if v.problem]
        except (FilesNotIndexed, RestorePointNotFound):
            if not keys:
                CONTEXT.output.note("its files are not recorded: opening the restore point, which takes a moment")
            with services.mount(found, keys=keys) as session:
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
    pattern: options.Pattern = "",
    machine: options.OfMachines = None,
    point: options.InPoint = None,
    kind: options.Meant = Kind.AUTO,
    type_: options.Types = None,
    min_size: options.MinSize = None,
    max_size: options.MaxSize = None,
    since: options.Since = None,
    until: options.Until = None,
    deleted: options.Deleted = False,
    all_versions: options.AllVersions = False,
    limit: options.AtMost = 1000,
) -> None:
    """Search recorded files of all machines and restore points; shows the newest version of each."""
    with CONTEXT.services() as services:
        query = Query(
            pattern,
            kind,
            machines=frozenset(operations.points_of(services, name)[-1].machine for name in machine or ()),
            point=services.repository.point(point).id if point else None,
            min_size=min_size,
            max_size=max_size,
            modified_since=since.astimezone() if since else None,
            modified_until=until.astimezone() if until else None,
            types=frozenset(t.value for t in type_ or ()),
            deleted=deleted,
            all_versions=all_versions,
        )
        audit(services, "search", services.repository.point(point) if point else None, pattern=pattern)
        machines = {p.machine: p.machine_name for p in services.repository.points()}
        found, more = _search(services, query, limit)
        unsearched = len(unrecorded(services)) if point is None else 0
    rows = [
        (machines.get(f.machine, f.machine), shown(f.path), format_size(f.size), _moment(f.mtime_ns), f.last_point)
        for f in found
    ]
    columns = ("MACHINE", "PATH", "SIZE", "CHANGED", "NEWEST RESTORE POINT")
    CONTEXT.output.result(found, table(*columns, rows=rows))
    if more:
        CONTEXT.output.warn(f"only the first {limit} are shown; --limit shows more")
    if unsearched:
        CONTEXT.output.note(f"{unsearched} restore points are not searched: their files are not recorded")


def _search(services: "Services", query: Query, limit: int) -> tuple[Sequence[FileVersion], bool]:
    """Found files, and whether there may be more."""
    found: list[FileVersion] = []
    with services.catalog.transaction(write=False) as unit:
        try:
            while True:
                page = unit.files.search(replace(query, limit=min(limit - len(found), PAGE)))
                found += page.files
                query = replace(query, after=page.after)
                if page.after is None or len(found) >= limit:
                    return found, page.after is not None
        except RestorePointNotFound:  # the repository has it, so it is the catalog that does not
            raise FilesNotIndexed(query.point or "") from None


@files.command("get")
def get(
    point: Annotated[str, typer.Argument(metavar="POINT", help="Restore point; with --version, a machine.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="As the guest names them; folders with all in them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All volumes, instead of paths.")] = False,
    to: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Put the files there.")] = None,
    archive: Annotated[
        Path | None, typer.Option("--archive", "-a", help="Make an archive: NAME.tar, .tar.zst, .zip; - is stdout.")
    ] = None,
    format_: Annotated[Format | None, typer.Option("--format", help="Of the archive, whatever its name is.")] = None,
    version: options.Version = None,
    full_paths: options.FullPaths = False,
    one_file_system: Annotated[bool, typer.Option(help="Leave out volumes that are mounted below.")] = False,
    existing: Annotated[Existing, typer.Option(help="Names that are taken.")] = Existing.REFUSE,
    owner: Annotated[bool, typer.Option(help="Give files to the guest's users and groups, by number.")] = True,
    set_id: Annotated[bool, typer.Option(help="Set-user-id bits and capabilities of programs, too.")] = False,
    specials: Annotated[bool, typer.Option(help="Devices, FIFOs and sockets, too.")] = False,
    key_file: KeyFiles = None,
) -> None:
    """Restore files: into a directory, an archive, or (one file, nothing else said) to stdout.

    Each file appears whole or not at all. What cannot be read is told, and does not stop the rest. A restore into a
    directory that broke off is simply started again: what is there whole is not read a second time.
    """
    names = [path.encode(errors="surrogateescape") for path in paths or ()]
    if everything and one_file_system:
        raise typer.BadParameter("--everything is all file systems")
    kind = _checked(names, everything, to, archive, format_, version)
    with CONTEXT.services() as services:
        found = point_with(services, point, names[0] if names else None, version)
        audit(services, "restore-files", found, paths=[shown(n) for n in names], to=str(to or archive or STDOUT))
        keys = keys_in(key_file)
        with services.mount(found, keys=keys, lifetime=LIFETIME) as session, ExitStack() as held:
            if to is None and archive is None:
                to_stream(session, names[0], sys.stdout.buffer)
                return
            attributes = Attributes(owner=owner, set_id=set_id)
            target: FileTarget = held.enter_context(
                archive_target(archive, kind, existing)
                if archive is not None and kind is not None
                else DirectoryTarget(to or Path(), existing=existing, attributes=attributes, specials=specials)
            )
            report = restore_files(
                session,
                names,
                target,
                options=Options(full_paths=full_paths, one_file_system=one_file_system),
                progress=held.enter_context(restoring()),
                cancelled=services.cancelled.is_set,
            )
    _report(report, quiet=archive == STDOUT)


def _checked(
    names: Sequence[bytes],
    everything: bool,
    to: Path | None,
    archive: Path | None,
    kind: Format | None,
    version: int | None,
) -> Format | None:
    """Options that fit together; the archive's format, if one is to be made."""
    if bool(names) == everything:
        raise typer.BadParameter("name paths, or say --everything")
    if to is not None and archive is not None:
        raise typer.BadParameter("say either --to or --archive")
    if version is not None and len(names) != 1:
        raise typer.BadParameter("--version is of one file")
    if to is None and archive is None and len(names) != 1:
        raise typer.BadParameter("say with --to or --archive where the files shall go")
    if CONTEXT.output.as_json and to is None and archive in (None, STDOUT):
        raise typer.BadParameter("--json needs --to, or an --archive that is a file: stdout has room for one of them")
    if archive is None:
        if kind is not None:
            raise typer.BadParameter("--format is of an --archive")
        return None
    return format_of(archive, kind)


@contextmanager
def restoring() -> Iterator[Callable[[RestoreProgress], None]]:
    """A line that tells how far it is, if somebody looks."""
    output = CONTEXT.output
    if output.as_json or not output.notes.is_terminal:
        yield lambda _: None
        return
    with output.notes.status("reading") as line:
        told = 0.0

        def tell(progress: RestoreProgress) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= REDRAW_SECONDS:
                told = now
                text = f"{progress.entries} entries, {format_size(progress.content)}: {shown(progress.path)}"
                line.update(escape(text))

        yield tell


def _report(report: RestoreReport, *, quiet: bool) -> None:
    """``quiet``: stdout is the archive."""
    rows = [(action, count) for action, count in sorted(report.entries.items())]
    rows += [("failed", report.failed)] if report.failed else []
    size = f"{format_size(report.content)} in files, {format_size(report.written)} written"
    if quiet:
        CONTEXT.output.note(", ".join(f"{count} {action}" for action, count in rows) + f"; {size}")
    else:
        CONTEXT.output.result(report, table("ENTRIES", "NUMBER", rows=rows), size)
    for problem in report.problems[:SHOWN]:
        CONTEXT.output.warn(str(problem))
    if report.failed > SHOWN:
        CONTEXT.output.warn(f"{report.failed - SHOWN} more are not shown; --json tells them")
    for loss in report.losses:
        CONTEXT.output.note(f"not kept: {loss.what}: {loss.count} entries, for example {shown(loss.example)}")
    if not report.complete:
        raise typer.Exit(ATTENTION)


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
        return local(datetime.fromtimestamp(nanoseconds / 1e9, UTC))
    except (ValueError, OverflowError, OSError):
        return "out of range"
