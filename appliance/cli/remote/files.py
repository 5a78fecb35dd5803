"""``lanfree --server URL files``: what restore points hold, from anywhere."""

import sys
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from api.client import Client
from api.schemas.files import (
    ChangeKind,
    Comparison,
    DownloadLink,
    Facts,
    FileGrowth,
    Format,
    FoundFile,
    Listing,
    TaskReference,
)
from api.schemas.files import FileVersions as Versions
from api.schemas.tasks import Task
from appliance.cli import shared_options as options
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, local, table
from appliance.cli.remote.following import Wait, followed
from appliance.cli.remote.machines import machine_of
from appliance.cli.remote.points import point_of
from catalog.patterns import Kind
from mounter.ports import FileType
from proxy.errors import ConfigurationError, FileNotRestored, GuestFileNotFound
from proxy.units import format_size

files = typer.Typer(no_args_is_help=True, help="Files inside restore points: index, list, find, get.")
app.add_typer(files, name="files")


_SIGNS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}
_PREFIX = "/api/v1"


@files.command("index")
def index(
    points: Annotated[
        list[str] | None, typer.Argument(metavar="POINT...", help="Restore points; none: all that are not recorded.")
    ] = None,
    wait: Wait = True,
) -> None:
    """Record the names of all files of restore points, so that they can be searched."""
    with CONTEXT.asking() as server:
        wanted = [point_of(server, point).id for point in points or ()]
        followed(server, server.post(Task, "/indexings", {"points": wanted}), wait=wait)


@files.command("ls")
def list_directory(
    point: options.Point, path: Annotated[str, typer.Argument(help="As the guest names it: /etc, C:/Users")] = "/"
) -> None:
    """List a directory: from the catalog where the files are recorded, else by opening the restore point."""
    with CONTEXT.asking() as server:
        found = point_of(server, point)
        page = server.get(Listing, f"/restore-points/{found.id}/files", path_=path, limit=1000)
        entries, first = list(page.items), page
        while page.next is not None:
            page = server.get(Listing, f"/restore-points/{found.id}/files", path_=path, limit=1000, cursor=page.next)
            entries += page.items
    rows = [(_mode(e), f"{e.uid}:{e.gid}", format_size(e.size), _moment(e), _shown(e)) for e in entries]
    shown = table("MODE", "OWNER", "SIZE", "CHANGED", "NAME", rows=rows)
    CONTEXT.output.result([e.model_dump(mode="json") for e in entries], shown)
    for volume in first.unread:
        where = volume.mountpoint or "not mounted"
        CONTEXT.output.warn(f"{volume.device} ({where}) could not be read: {volume.problem}")
    if not entries and first.unread:
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
    with CONTEXT.asking() as server:
        wanted: dict[str, Any] = {
            "q": pattern,
            "machine": [machine_of(server, name).id for name in machine or ()] or None,
            "point": point_of(server, point).id if point else None,
            "kind": kind.value,
            "type": [each.value for each in type_ or ()] or None,
            "min_size": min_size,
            "max_size": max_size,
            "since": since.astimezone() if since else None,
            "until": until.astimezone() if until else None,
            "deleted": deleted,
            "all_versions": all_versions,
        }
        every = server.items(FoundFile, "/files/search", **wanted, limit=min(limit + 1, 1000))
        found = list(islice(every, limit + 1))
    rows = [(f.machine_name, f.path, format_size(f.size), _moment(f), f.last_point) for f in found[:limit]]
    columns = ("MACHINE", "PATH", "SIZE", "CHANGED", "NEWEST RESTORE POINT")
    CONTEXT.output.result([f.model_dump(mode="json") for f in found[:limit]], table(*columns, rows=rows))
    if len(found) > limit:
        CONTEXT.output.warn(f"only the first {limit} are shown; --limit shows more")


@files.command("get")
def get(
    point: Annotated[str, typer.Argument(metavar="POINT", help="Restore point; with --version, a machine.")],
    paths: options.GuestPaths,
    to: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Put single files there.")] = None,
    archive: Annotated[
        Path | None, typer.Option("--archive", "-a", help="Make an archive here: NAME.tar, .tar.zst, .zip.")
    ] = None,
    version: options.Version = None,
    full_paths: options.FullPaths = False,
) -> None:
    """Fetch files: single ones into a directory here, all kinds into an archive, or (one file, nothing else said) to stdout."""
    if to is not None and archive is not None:
        raise typer.BadParameter("say either --to or --archive")
    if to is None and archive is None and len(paths) != 1:
        raise typer.BadParameter("say with --to or --archive where the files shall go")
    if version is not None and len(paths) != 1:
        raise typer.BadParameter("--version is of one file")
    if to is None and archive is None and CONTEXT.output.as_json:
        raise typer.BadParameter("--json needs --to or --archive: stdout has room for one of them")
    if archive is not None and archive.exists():
        raise _taken(archive)  # before a restore point is opened for it
    with CONTEXT.asking() as server:
        found = point_of(server, point).id if version is None else _point_with(server, point, paths[0], version)
        if to is not None:
            _to_directory(server, found, paths, to)
            return
        asked = {
            "point": found,
            "paths": [{"path": path} for path in paths],
            "format": (Format.RAW if archive is None else _format(archive)).value,
            "full_paths": full_paths,
        }
        link = server.post(DownloadLink, "/downloads", asked)
        if archive is None:
            _to_stdout(server, link.url)
            return
        size = _fetched(server, link.url.removeprefix(_PREFIX), archive)
    CONTEXT.output.result({"file": str(archive), "bytes": size}, f"{archive}: {format_size(size)}")


@files.command("push")
def push(
    point: options.Point,
    paths: options.GuestPaths,
    to: options.IntoGuest,
    overwrite: options.Overwrite = False,
    full_paths: options.FullPaths = False,
    wait: Wait = True,
) -> None:
    """Restore files into a running machine, through its guest agent: no network path to the guest is needed."""
    name, colon, directory = to.partition(":")
    if not (name and colon and directory):
        raise typer.BadParameter("write it as MACHINE:DIRECTORY, for example web1:/srv/restored", param_hint="--to")
    with CONTEXT.asking() as server:
        found, machine = point_of(server, point), machine_of(server, name)
        place = {"kind": "guest", "machine": machine.id, "directory": directory, "overwrite": overwrite}
        asked = {"paths": [{"path": path} for path in paths], "to": place, "full_paths": full_paths}
        begun = server.post(TaskReference, f"/restore-points/{found.id}/files/restore", asked, key=server.new_key())
        followed(server, server.get(Task, f"/tasks/{begun.id}"), wait=wait)


@files.command("versions")
def versions(machine: options.Machine, path: options.FilePath) -> None:
    """All recorded versions of one file, the newest first, and how many restore points hold each."""
    with CONTEXT.asking() as server:
        found = server.get(Versions, f"/machines/{machine_of(server, machine).id}/files/versions", path_=path)
    rows = [
        (
            format_size(v.size),
            _moment(v),
            f"{v.mode:04o}",
            f"{v.uid}:{v.gid}",
            v.first_point,
            v.last_point,
            len(v.held_by),
        )
        for v in found.versions
    ]
    columns = ("SIZE", "CHANGED", "MODE", "OWNER", "FIRST RESTORE POINT", "LAST RESTORE POINT", "HELD BY")
    CONTEXT.output.result(found.model_dump(mode="json"), table(*columns, rows=rows))


@files.command("diff")
def diff(
    before: options.Point,
    after: options.Point,
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="Only this directory, and all below it.")] = "/",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many; the sums are of all.")] = 1000,
) -> None:
    """What was added (+), removed (-) and changed (~) from one restore point of a machine to another."""
    with CONTEXT.asking() as server:
        where = f"/restore-points/{point_of(server, before).id}/files/compare/{point_of(server, after).id}"
        found = server.get(Comparison, where, path_=path, limit=limit)
    rows = [(_SIGNS[c.kind], _signed(c.growth), c.path, ", ".join(c.facts)) for c in found.items]
    sums = found.sums
    said = f"{sums.added} added, {sums.removed} removed, {sums.changed} changed; {_signed(sums.growth)} in all"
    CONTEXT.output.result(found.model_dump(mode="json"), table("", "GROWTH", "PATH", "DIFFERS IN", rows=rows), said)
    if found.next is not None:
        CONTEXT.output.warn(f"only the first {limit} are shown; --limit shows more")


@files.command("growth")
def growth(
    machine: options.Machine,
    since: options.FromPoint = None,
    to: options.ToPoint = None,
    under: options.Under = "/",
    limit: options.Several = 20,
) -> None:
    """The files and directories of a machine that grew most, and the size of all its files in each restore point."""
    with CONTEXT.asking() as server:
        first, last = (point_of(server, name).id if name else None for name in (since, to))
        where = f"/machines/{machine_of(server, machine).id}/files/growth"
        found = server.get(FileGrowth, where, path_=under, first=first, last=last, limit=limit)
    CONTEXT.output.result(
        found.model_dump(mode="json"),
        table("RESTORE POINT", "FILES", "SIZE", rows=[(t.point, t.files, format_size(t.bytes)) for t in found.totals]),
        table(
            "GROWTH", "CHANGES", "DIRECTORY", rows=[(_signed(d.growth), d.changes, d.path) for d in found.directories]
        ),
        table("GROWTH", "FILE", rows=[(_signed(c.growth), c.path) for c in found.files]),
    )


def _point_with(server: Client, machine: str, path: str, version: int) -> str:
    """The newest restore point that holds so old a version of the file."""
    found = server.get(Versions, f"/machines/{machine_of(server, machine).id}/files/versions", path_=path)
    if version > len(found.versions):
        raise GuestFileNotFound(path, f"it has {len(found.versions)} recorded versions")
    return found.versions[version - 1].last_point


def _to_directory(server: Client, point: str, paths: list[str], directory: Path) -> None:
    """Each file whole or not at all; what is there already stays, and ends the command."""
    directory.mkdir(parents=True, exist_ok=True)
    done = []
    for path in paths:
        file = directory / PurePosixPath(path.replace("\\", "/")).name
        where = f"/restore-points/{point}/files/download"
        size = _fetched(server, where, file, path_=path, format=Format.RAW.value)
        done.append({"file": str(file), "bytes": size})
    CONTEXT.output.result(done, *(f"{each['file']}: {each['bytes']} bytes" for each in done))


def _fetched(server: Client, where: str, file: Path, **params: str) -> int:
    """Bytes of the new file. Raises ``FileNotRestored`` for one that is there already."""
    try:
        return server.download(where, file, **params)
    except FileExistsError:
        raise _taken(file) from None


def _taken(file: Path) -> FileNotRestored:
    return FileNotRestored(str(file), "it is there already", hint="choose another place")


def _to_stdout(server: Client, url: str) -> None:
    for part in server.stream(url.removeprefix(_PREFIX)):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def _format(archive: Path) -> Format:
    for format_ in (Format.TAR_ZST, Format.TAR, Format.ZIP):
        if archive.name.endswith(f".{format_.value}"):
            return format_
    raise ConfigurationError(str(archive), "its name tells no format", hint="end it with .zip, .tar or .tar.zst")


def _mode(entry: Facts) -> str:
    return f"{entry.mode:04o}" if entry.type is FileType.FILE else entry.type.value


def _shown(entry: Facts) -> str:
    return f"{entry.name} -> {entry.link_target}" if entry.link_target else entry.name


def _moment(entry: Facts) -> str:
    return local(entry.modified_at) if entry.modified_at else "-"


def _signed(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{format_size(abs(size))}"
