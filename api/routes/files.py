"""Files inside restore points: list, search, compare, download, restore."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, requires
from api.errors import PROBLEMS
from api.paging import Cursor, Limit
from api.ports.files import RangeRefused
from api.schemas.common import Moment
from api.schemas.files import (
    Comparison,
    DownloadLink,
    DownloadRequest,
    FileGrowth,
    FileRestoreRequest,
    FileVersions,
    Format,
    FoundFiles,
    Listing,
    LostFiles,
    PathReference,
    SearchQuery,
    TaskReference,
    Volumes,
)
from api.schemas.guest_names import PathId, PathText, guest_path
from api.streaming import DownloadResponse, out_of_range, span_of
from catalog.patterns import Kind
from mounter.ports import FileType

router = APIRouter(tags=["files"], responses=PROBLEMS)

Browser = Annotated[Caller, requires(Permission.BROWSE_FILES)]
Restorer = Annotated[Caller, requires(Permission.RESTORE_FILES)]
PathQuery = Annotated[PathText | None, Query()]
PathIdQuery = Annotated[PathId | None, Query()]
Session = Annotated[str | None, Query(max_length=64, description="A mount session of the caller's.")]
Pattern = Annotated[str, Query(max_length=1000, pattern=r"^[^\x00]*$")]
Size = Annotated[int | None, Query(ge=0, lt=1 << 63, description="Bytes.")]
Name = Annotated[str, Query(min_length=1, max_length=255)]

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_KINDS = ("application/octet-stream", "application/zip", "application/x-tar", "application/zstd")
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file, or the archive.", "content": dict.fromkeys(_KINDS, _BYTES)},
    206: {"description": "A part of the file.", "content": {"application/octet-stream": _BYTES}},
    416: {"description": "The file does not have this part."},
}


@router.get("/restore-points/{point}/files", summary="List a directory")
def listing(
    point: str,
    caller: Browser,
    desk: TheDesk,
    *,
    path: PathQuery = None,
    path_id: PathIdQuery = None,
    session: Session = None,
    type_: Annotated[list[FileType], Query(alias="type", max_length=8)] = [],  # noqa: B006  # FastAPI copies it
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Listing:
    """As it was recorded after the backup, else by opening the restore point, which takes seconds to a minute. ``source`` says
    which it was, ``unread`` what could not be read. Without a path the root; a Windows machine has its drives there."""
    wanted = guest_path(path, path_id)
    return desk.files.listing(caller, point, wanted, session=session, types=type_, limit=limit, cursor=cursor)


@router.get("/restore-points/{point}/volumes", summary="File systems of a restore point")
def volumes(point: str, caller: Browser, desk: TheDesk, session: Session = None) -> Volumes:
    """With what could not be read, and why; and what the guest used over its network, which is not in it."""
    return desk.files.volumes(caller, point, session=session)


@router.get(
    "/restore-points/{point}/files/download",
    summary="Download a file or a folder",
    response_class=Response,
    responses=_BINARY,
)
def download(
    request: Request,
    point: Annotated[str, Path(max_length=128)],
    caller: Restorer,
    desk: TheDesk,
    *,
    path: PathQuery = None,
    path_id: PathIdQuery = None,
    format_: Annotated[Format, Query(alias="format")] = Format.RAW,
    session: Session = None,
) -> Response:
    """``raw``: one file, with its length, an ``ETag``, and parts of it by ``Range``. Archives are made while they are sent:
    their length is not known before; an answer that breaks off is not whole."""
    if not path and not path_id:
        path = "/"
    wanted = DownloadRequest(
        point=point, paths=[PathReference(path=path, path_id=path_id)], format=format_, session=session
    )
    try:
        return DownloadResponse(desk.files.download(caller, wanted, span_of(request)))
    except RangeRefused as refused:
        return out_of_range(refused, request)


@router.post("/downloads", status_code=201, summary="Make a link to a download")
def offer(request: DownloadRequest, caller: Restorer, desk: TheDesk, response: Response) -> DownloadLink:
    """For any number of files and folders of a restore point. The link is good once, for a minute, and for the same user: a
    browser follows it as any other."""
    made = desk.files.offer(caller, request)
    response.headers["Location"] = made.url
    return made


@router.get("/downloads/{token}", summary="Follow a link", response_class=Response, responses=_BINARY)
def redeem(token: str, caller: Restorer, desk: TheDesk) -> Response:
    """The download that was asked for with it."""
    return DownloadResponse(desk.files.redeem(caller, token))


@router.get("/files/search", summary="Search recorded files")
def search(
    caller: Browser,
    desk: TheDesk,
    *,
    q: Pattern = "",
    kind: Kind = Kind.AUTO,
    machine: Annotated[list[Name], Query(max_length=100)] = [],  # noqa: B006  # FastAPI copies it
    point: Annotated[str | None, Query(max_length=128)] = None,
    type_: Annotated[list[FileType], Query(alias="type", max_length=8)] = [],  # noqa: B006  # FastAPI copies it
    min_size: Size = None,
    max_size: Size = None,
    since: Annotated[Moment | None, Query(description="Changed then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Changed before.")] = None,
    deleted: Annotated[bool, Query(description="Only what its machine has no more.")] = False,
    all_versions: bool = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> FoundFiles:
    """By a part of the path, or a pattern (``*.conf``); case does not matter. Of all machines within reach, exact names
    first."""
    query = SearchQuery(
        q=q,
        kind=kind,
        machines=machine,
        point=point,
        types=type_,
        min_size=min_size,
        max_size=max_size,
        since=since,
        until=until,
        deleted=deleted,
        all_versions=all_versions,
    )
    return desk.files.search(caller, query, limit=limit, cursor=cursor)


@router.get("/files/lost", summary="'I lost a file': what may it be?")
def lost(
    caller: Browser,
    desk: TheDesk,
    *,
    machine: Name,
    name: Annotated[str, Query(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")],
    when: Annotated[Moment | None, Query(description="It was there, and right, then.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> LostFiles:
    """Recorded files of such a name, the likeliest first: what was deleted since, what was changed since; each with the
    reasons, and the restore point that has it as it was."""
    return desk.files.lost(caller, machine, name, when=when, limit=limit)


@router.get("/machines/{machine}/files/versions", summary="Versions of a file")
def versions(
    machine: str, caller: Browser, desk: TheDesk, *, path: PathQuery = None, path_id: PathIdQuery = None
) -> FileVersions:
    """All that were recorded, newest first, with the restore points that hold each."""
    return desk.files.versions(caller, machine, guest_path(path, path_id))


@router.get("/machines/{machine}/files/growth", summary="What grew")
def growth(
    machine: str,
    caller: Browser,
    desk: TheDesk,
    *,
    path: PathQuery = None,
    path_id: PathIdQuery = None,
    first: Annotated[str | None, Query(max_length=128, description="Restore point; the oldest recorded one.")] = None,
    last: Annotated[str | None, Query(max_length=128, description="Restore point; the newest recorded one.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> FileGrowth:
    """The files and directories that grew most between two restore points, and the sizes of all files in each."""
    wanted = guest_path(path, path_id)
    return desk.files.growth(caller, machine, wanted, first=first, last=last, limit=limit)


@router.get("/restore-points/{before}/files/compare/{after}", summary="Compare two restore points")
def compare(
    before: str,
    after: str,
    caller: Browser,
    desk: TheDesk,
    *,
    path: PathQuery = None,
    path_id: PathIdQuery = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Comparison:
    """What was added, removed and changed from one to the other, at and below a path; the sums are of all of it."""
    wanted = guest_path(path, path_id)
    return desk.files.compare(caller, before, after, wanted, limit=limit, cursor=cursor)


@router.post("/restore-points/{point}/files/restore", status_code=202, summary="Restore files")
def restore(
    point: str,
    request: FileRestoreRequest,
    caller: Restorer,
    desk: TheDesk,
    response: Response,
    *,
    idempotency_key: Annotated[str | None, Header(max_length=255, include_in_schema=False)] = None,
) -> TaskReference:
    """To a directory of the proxy, where that is allowed, or into a running machine through its guest agent. Done by a task."""
    task = desk.files.restore(caller, point, request, key=idempotency_key)
    response.headers["Location"] = f"/api/v1/tasks/{task}"
    return TaskReference(id=task)
