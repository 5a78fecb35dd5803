"""``lanfree files versions``, ``holding``, ``diff``, ``growth``: files over time; ``lanfree access-log``: who looked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from appliance import operations
from appliance.auditing import audit
from appliance.cli.app import CONTEXT, app
from appliance.cli.files import _moment, files
from appliance.cli.output import exit_code, local, table, zoned
from appliance.cli.shared_options import FilePath, FromPoint, Machine, Point, Several, ToPoint, Under
from mounter.ports import shown
from proxy.errors import FilesNotIndexed, GuestFileNotFound, IntegrityError, RestorePointNotFound
from proxy.model import MachineId, RestorePointId
from proxy.units import format_size

if TYPE_CHECKING:
    from appliance.wiring import Services
    from catalog.changes import Change, Sums
    from catalog.unit_of_work import Unit
    from catalog.values import FileVersion


@files.command("versions")
def versions(machine: Machine, path: FilePath) -> None:
    """All recorded versions of one file, the newest first, and how many restore points hold each."""
    with CONTEXT.services() as services, _recorded(services, machine, path) as (unit, found):
        held = [unit.files.holding(version) for version in found]
    rows = [
        (_what(v), _moment(v.mtime_ns), f"{v.mode:04o}", f"{v.uid}:{v.gid}", v.first_point, v.last_point, len(points))
        for v, points in zip(found, held, strict=True)
    ]
    columns = ("SIZE", "CHANGED", "MODE", "OWNER", "FIRST RESTORE POINT", "LAST RESTORE POINT", "HELD BY")
    documents = [{"version": v, "held_by": points} for v, points in zip(found, held, strict=True)]
    CONTEXT.output.result(documents, table(*columns, rows=rows))


@files.command("holding")
def holding(
    machine: Machine,
    path: FilePath,
    point: Annotated[str | None, typer.Option(help="Only the version that this restore point holds.")] = None,
) -> None:
    """The restore points that still hold a file, by version: what is lost when they are deleted."""
    with CONTEXT.services() as services, _recorded(services, machine, path) as (unit, found):
        held = [(version, unit.files.holding(version)) for version in found]
        if point is not None:
            only = services.repository.point(point).id
            held = [(version, points) for version, points in held if only in points]
            if not held:
                raise GuestFileNotFound(shown(_bytes(path)), f"not in restore point {only}")
        taken = {p.id: local(p.created_at) for p in services.repository.points()}
    rows = [
        (_what(v), _moment(v.mtime_ns), each, taken.get(each, "")) for v, points in held for each in reversed(points)
    ]
    documents = [{"version": v, "held_by": points} for v, points in held]
    CONTEXT.output.result(documents, table("SIZE", "CHANGED", "RESTORE POINT", zoned("TAKEN"), rows=rows))


@files.command("diff")
def diff(
    before: Point,
    after: Point,
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="Only this directory, and all below it.")] = "/",
    limit: Annotated[int, typer.Option(min=1, help="At most so many; the sums are of all.")] = 1000,
) -> None:
    """What was added (+), removed (-) and changed (~) from one restore point of a machine to another."""
    with CONTEXT.services() as services:
        first, second = services.repository.point(before), services.repository.point(after)
        audit(services, "browse", second, since=first.id, path=shown(_bytes(path)))
        with _catalogued(services, first.id, second.id) as unit:
            changes = list(islice(unit.files.changes.between(first.id, second.id, _bytes(path)), limit))
            sums = unit.files.changes.sums(first.id, second.id, _bytes(path))
    signs = {"added": "+", "removed": "-", "changed": "~"}
    rows = [(signs[c.kind], _signed(c.growth), shown(c.path), ", ".join(c.facts).replace("_ns", "")) for c in changes]
    document = {"before": first.id, "after": second.id, "sums": sums, "changes": [_document(c) for c in changes]}
    CONTEXT.output.result(document, table("", "GROWTH", "PATH", "DIFFERS IN", rows=rows), _told(sums))
    if sums.added + sums.removed + sums.changed > limit:
        CONTEXT.output.warn(f"only the first {limit} are shown; --limit shows more")


@files.command("growth")
def growth(
    machine: Machine,
    since: FromPoint = None,
    to: ToPoint = None,
    under: Under = "/",
    limit: Several = 20,
) -> None:
    """The files and directories of a machine that grew most, and the size of all its files in each restore point."""
    wanted = _bytes(under)
    with CONTEXT.services() as services:
        identity = operations.points_of(services, machine)[-1].machine
        points = [None if name is None else services.repository.point(name) for name in (since, to)]
        if any(point is not None and point.machine != identity for point in points):
            raise typer.BadParameter(f"--from and --to are restore points of {machine}")
        ends = [None if point is None else point.id for point in points]
        newest = operations.points_of(services, machine)[-1]
        audit(services, "browse", newest, growth=shown(wanted), since=ends[0], to=ends[1])
        with _catalogued(services, *(end for end in ends if end is not None)) as unit:
            totals = unit.files.changes.over_time(identity, wanted)
            if not totals:
                raise FilesNotIndexed(f"of {machine}")
            first, last = ends[0] or totals[0].point, ends[1] or totals[-1].point
            most = unit.files.changes.growth(first, last, wanted, limit)
    document = {"from": first, "to": last, "totals": totals, "directories": most.directories}
    document["files"] = [_document(c) for c in most.files]
    CONTEXT.output.result(
        document,
        table("RESTORE POINT", "FILES", "SIZE", rows=[(t.point, t.files, format_size(t.bytes)) for t in totals]),
        table(
            "GROWTH",
            "CHANGES",
            "DIRECTORY",
            rows=[(_signed(d.growth), d.changes, shown(d.path)) for d in most.directories],
        ),
        table("GROWTH", "FILE", rows=[(_signed(c.growth), shown(c.path)) for c in most.files]),
    )


log = typer.Typer(no_args_is_help=True, help="Who looked into restore points, and what was done.")
app.add_typer(log, name="access-log")


@log.command("list")
def list_entries(
    machine: Annotated[str | None, typer.Option(help="Only of this machine, by name or identity.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
) -> None:
    """The newest entries of the audit log, the newest first."""
    with CONTEXT.services() as services:
        identity = operations.points_of(services, machine)[-1].machine if machine else None
        entries = services.catalog.audit.list(identity, limit=limit)
    rows = [(e.number, local(e.at), e.who, e.action, e.point or "", _facts(e.detail)) for e in entries]
    CONTEXT.output.result(
        entries, table("NUMBER", zoned("WHEN"), "WHO", "ACTION", "RESTORE POINT", "DETAIL", rows=rows)
    )


@log.command("check")
def check(
    head: Annotated[
        str | None, typer.Option(metavar="NUMBER:DIGEST", help="A head that was kept elsewhere; it must be in the log.")
    ] = None,
) -> None:
    """Whether entries of the audit log were changed or taken out. Prints its head, which may be kept elsewhere."""
    from catalog.audit import AuditHead  # noqa: PLC0415  # see Services.catalog

    known = None
    if head is not None:
        number, colon, digest = head.partition(":")
        if not (colon and number.isdigit() and digest):
            raise typer.BadParameter("a head is NUMBER:DIGEST, as this command prints it")
        known = AuditHead(int(number), digest)
    with CONTEXT.services() as services:
        faults = services.catalog.audit.check(known)
        newest = services.catalog.audit.head()
    rows = [(f.number, f.why) for f in faults]
    good = f"{newest.number} entries, whole and unchanged"
    document = {"head": f"{newest.number}:{newest.digest}", "faults": faults}
    CONTEXT.output.result(
        document, table("FROM ENTRY", "WHAT", rows=rows) if rows else good, f"head {document['head']}"
    )
    if faults:
        raise typer.Exit(exit_code(IntegrityError("", "")))


@contextmanager
def _recorded(services: "Services", machine: str, path: str) -> Iterator[tuple["Unit", Sequence["FileVersion"]]]:
    """The versions of a file. Raises ``GuestFileNotFound``, ``MachineNotFound``."""
    points = operations.points_of(services, machine)
    identity: MachineId = points[-1].machine
    audit(services, "search", points[-1], path=shown(_bytes(path)))
    with services.catalog.transaction(write=False) as unit:
        found = unit.files.versions(identity, _bytes(path))
        if not found:
            raise GuestFileNotFound(shown(_bytes(path)), "not in any restore point whose files are recorded")
        yield unit, found
        ids = {p.id for p in points}
        unsearched = len(ids.intersection(unit.restore_points.not_indexed()))
    if unsearched:
        CONTEXT.output.note(f"{unsearched} restore points are not searched: their files are not recorded")


@contextmanager
def _catalogued(services: "Services", *points: RestorePointId) -> Iterator["Unit"]:
    """A reading unit; what only the repository knows is not indexed, rather than not there."""
    try:
        with services.catalog.transaction(write=False) as unit:
            yield unit
    except RestorePointNotFound:
        raise FilesNotIndexed(" ".join(points)) from None


def _told(sums: "Sums") -> str:
    return (
        f"{sums.added} added ({format_size(sums.bytes_added)}), {sums.removed} removed"
        f" ({format_size(sums.bytes_removed)}), {sums.changed} changed ({format_size(sums.bytes_changed)});"
        f" {_signed(sums.growth)} in all"
    )


def _document(change: "Change") -> dict[str, object]:
    return {
        "kind": change.kind,
        "path": change.path,
        "growth": change.growth,
        "facts": change.facts,
        "before": change.before,
        "after": change.after,
    }


def _signed(size: int) -> str:
    return f"-{format_size(-size)}" if size < 0 else f"+{format_size(size)}"


def _what(version: "FileVersion") -> str:
    """The size of a file; of all else its type."""
    return format_size(version.size) if version.type == "file" else version.type


def _facts(detail: object) -> str:
    pairs = detail.items() if isinstance(detail, dict) else ()
    return ", ".join(f"{name}={value}" for name, value in pairs)


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")
