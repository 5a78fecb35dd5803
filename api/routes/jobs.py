"""Jobs: policies that back up by themselves."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from api.auth.approvals import four_eyes, performs
from api.auth.roles import Caller, Permission
from api.conditions import IfMatch, etag, revision_of
from api.deps import TheDesk, Viewer, requires
from api.desk import Desk
from api.errors import PROBLEMS, Problem
from api.paging import Cursor, Limit, Page
from api.routes.approvals import WAITS, waits
from api.schemas.jobs import (
    AskedRun,
    ChangedJob,
    ImportRequest,
    ImportResult,
    Job,
    JobLine,
    JobPreview,
    NewJob,
    PreviewRequest,
    RunBegun,
)

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=PROBLEMS)

Editor = Annotated[Caller, requires(Permission.EDIT_JOBS)]
Operator = Annotated[Caller, requires(Permission.BACK_UP)]

_CHANGE, _IMPORT = "change-job", "import-jobs"

_TAGGED = {"headers": {"ETag": {"description": "The revision, for `If-Match`.", "schema": {"type": "string"}}}}
_CONDITIONAL: dict[int | str, dict[str, Any]] = {
    412: {"model": Problem, "description": "It was changed meanwhile."},
    428: {"model": Problem, "description": "`If-Match` is missing."},
}


@router.get("", summary="All jobs, by name", name="list")
def list_jobs(
    *,
    caller: Viewer,
    desk: TheDesk,
    limit: Limit = 100,
    cursor: Cursor = None,
    sort: Literal["name", "-name"] = "name",
    q: Annotated[str, Query(max_length=200, description="Part of the name or the description.")] = "",
    enabled: bool | None = None,
) -> Page[JobLine]:
    """By name, with their next runs and how the last one ended."""
    del caller
    return desk.jobs.page(limit=limit, cursor=cursor, sort=sort, like=q, enabled=enabled)


@router.post("", summary="Make a job", status_code=201, name="create", responses={201: _TAGGED})
def create(new: NewJob, caller: Editor, desk: TheDesk, response: Response) -> Job:
    """What its policy means can be seen before by `POST /jobs/preview`."""
    made = desk.jobs.add(caller, new)
    response.headers["ETag"] = etag(made.revision)
    response.headers["Location"] = f"/api/v1/jobs/{made.id}"
    return made


@router.post("/preview", summary="What a policy would mean", name="preview_policy")
def preview_policy(request: PreviewRequest, caller: Viewer, desk: TheDesk) -> JobPreview:
    """Machines, coming runs, what would be kept, how it fits into the coming hours. Nothing is stored."""
    return desk.jobs.preview(caller, request)


@router.get(
    "/export",
    summary="Jobs as YAML",
    response_class=PlainTextResponse,
    responses={200: {"content": {"application/yaml": {}}}},
)
def export(
    caller: Viewer,
    desk: TheDesk,
    name: Annotated[list[str] | None, Query(max_length=1000, description="Of these; of all without.")] = None,
) -> PlainTextResponse:
    """What is as by default is left out; `POST /jobs/import` takes it back."""
    del caller
    return PlainTextResponse(desk.jobs.written(name or []), media_type="application/yaml")


@router.post("/import", summary="Take jobs from YAML", name="import", response_model=ImportResult, responses=WAITS)
def import_(request: ImportRequest, caller: Editor, desk: TheDesk) -> ImportResult | JSONResponse:
    """All of them, or none where one thing is wrong; `dry_run` only tells. As a change, it may need a second person."""
    shorter = "" if request.dry_run else desk.jobs.shortened_by(request)
    if shorter:
        asked = four_eyes(desk, caller, _IMPORT, request.model_dump(), summary=f"jobs keep less: {shorter}")
        if asked is not None:
            return waits(asked)
    return desk.jobs.take(caller, request)


@router.get("/{name}", summary="One job", responses={200: _TAGGED})
def get(name: str, caller: Viewer, desk: TheDesk, response: Response) -> Job:
    """By its name or its identity. Its `ETag` is needed to change it."""
    del caller
    found = desk.jobs.get(name)
    response.headers["ETag"] = etag(found.revision)
    return found


@router.put("/{name}", summary="Change a job", response_model=Job, responses=_CONDITIONAL | WAITS | {200: _TAGGED})
def change(
    *, name: str, changed: ChangedJob, caller: Editor, desk: TheDesk, response: Response, if_match: IfMatch = None
) -> Job | JSONResponse:
    """All of its policy. Runs under way go on as they began. Shorter retention needs a second person where the site says so."""
    revision = revision_of(if_match, f"job {name}")
    shorter = desk.jobs.shortened(name, changed.policy, revision)
    if shorter:
        params = {"job": name, "revision": revision, "changed": changed.model_dump(mode="json")}
        asked = four_eyes(desk, caller, _CHANGE, params, summary=f"job {name} keeps less: {shorter}")
        if asked is not None:
            return waits(asked)
    done = desk.jobs.change(caller, name, changed, revision)
    response.headers["ETag"] = etag(done.revision)
    return done


@router.delete("/{name}", summary="Remove a job", status_code=204, responses=_CONDITIONAL)
def remove(name: str, caller: Editor, desk: TheDesk, if_match: IfMatch = None) -> None:
    """Its restore points stay, and are kept by the rules that it had last. `If-Match` is honoured, not asked for."""
    revision = None if if_match is None else revision_of(if_match, f"job {name}")
    desk.jobs.remove(caller, name, revision)


@router.post("/{name}/enable", summary="Let its schedule begin runs", responses={200: _TAGGED})
def enable(name: str, caller: Editor, desk: TheDesk, response: Response) -> Job:
    """What passed while it was disabled is not made up for."""
    done = desk.jobs.enable(caller, name, enabled=True)
    response.headers["ETag"] = etag(done.revision)
    return done


@router.post("/{name}/disable", summary="Let its schedule begin nothing", responses={200: _TAGGED})
def disable(name: str, caller: Editor, desk: TheDesk, response: Response) -> Job:
    """A run under way goes on, and runs by command begin all the same."""
    done = desk.jobs.enable(caller, name, enabled=False)
    response.headers["ETag"] = etag(done.revision)
    return done


@router.get("/{name}/preview", summary="What a job means now")
def preview(
    name: str,
    caller: Viewer,
    desk: TheDesk,
    hours: Annotated[float, Query(ge=0.25, le=24 * 14)] = 24.0,
    limit: Annotated[int, Query(ge=0, le=10000)] = 200,
) -> JobPreview:
    """As `POST /jobs/preview`, of the policy that it has."""
    return desk.jobs.preview_of(caller, name, hours, limit)


@router.post("/{name}/runs", summary="Run a job now", status_code=202)
def run(name: str, caller: Operator, desk: TheDesk, response: Response, asked: AskedRun | None = None) -> RunBegun:
    """Whatever its schedule and window say. `Location` is the run, whose events tell how it goes on."""
    begun = desk.jobs.begin(caller, name, asked or AskedRun())
    response.headers["Location"] = f"/api/v1/job-runs/{begun.id}"
    return begun


@performs(_CHANGE, Permission.EDIT_JOBS)
def _change_approved(desk: Desk, caller: Caller, params: Mapping[str, Any]) -> object:
    changed = ChangedJob.model_validate(params["changed"])
    return desk.jobs.change(caller, str(params["job"]), changed, int(params["revision"]))


@performs(_IMPORT, Permission.EDIT_JOBS)
def _import_approved(desk: Desk, caller: Caller, params: Mapping[str, Any]) -> object:
    return desk.jobs.take(caller, ImportRequest.model_validate(dict(params)))
