"""Problems as RFC 9457 tells them: the only module that knows which error is which HTTP status.

Each answer that is no success is ``application/problem+json`` with the error's stable ``code``, what happened, and a hint.
``instance`` is the number under which the log has it. What was sent is never sent back: it may hold a secret.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from api import refusals
from proxy import errors
from proxy.errors import LanfreeError, TryAgain

_LOG = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER = 5
"""Seconds, where nothing better is known: what is busy usually is for longer, and who asks each second is no help."""


class FieldError(BaseModel):
    """``place``: body, query, path, header, cookie. ``pointer``: JSON pointer to it in the body, else the parameter's name."""

    place: str
    pointer: str
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457. ``type`` and ``code`` name the kind of problem and stay the same; ``detail`` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:lanfree:problem:job-busy",
                    "title": "Job busy",
                    "status": 409,
                    "detail": "job nightly runs: r-2026-11-23",
                    "instance": "urn:uuid:7d0f3a52-4f0e-4a83-9a3b-0d1f8f7f6f10",
                    "code": "job-busy",
                    "hint": "wait for it to end, then try again",
                }
            ]
        }
    )

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str
    code: str
    hint: str = ""
    errors: list[FieldError] | None = None


STATUS: Mapping[type[LanfreeError], int] = {
    # Nothing is wrong; the caller may send the same again.
    errors.TryAgain: 409,
    errors.DeviceBusy: 503,
    errors.DatabaseAway: 503,
    errors.WitnessFailed: 502,
    errors.ServerAway: 502,
    errors.NotTold: 502,
    refusals.TooMany: 429,
    # What the appliance asked of others did not come.
    errors.TransportError: 502,
    errors.ChangesUnknown: 409,
    errors.RunFailed: 409,
    errors.MachineNotFound: 404,
    errors.SnapshotFailed: 502,
    errors.SnapshotBroken: 502,
    errors.NoSpaceForOverlay: 507,
    errors.WriteFailed: 502,
    errors.HypervisorError: 502,
    errors.StopAll: 503,
    errors.HostUnreachable: 502,
    errors.RepositoryFull: 507,
    # Only a person can decide.
    errors.TellPerson: 409,
    errors.ConfigurationError: 422,
    errors.CertificateRefused: 502,
    errors.KeyRefused: 503,
    errors.FormatError: 500,
    errors.IntegrityError: 500,
    errors.RestorePointNotFound: 404,
    errors.CatalogFailed: 500,
    errors.AuditFailed: 503,
    errors.JobStoreFailed: 500,
    errors.JobNotFound: 404,
    errors.NoSuchMachine: 404,
    errors.SearchRefused: 422,
    errors.MountEnded: 410,
    errors.GuestFileNotFound: 404,
    errors.ToolFailed: 502,
    errors.ServerRefused: 502,
    refusals.NotSignedIn: 401,
    refusals.NotAllowed: 403,
    refusals.BeyondReach: 403,
    refusals.NotByToken: 403,
    refusals.CsrfRefused: 403,
    refusals.SignInRefused: 401,
    refusals.ProviderFailed: 502,
    errors.AccessStoreFailed: 500,
    errors.UserNotFound: 404,
    errors.PasswordRefused: 422,
    errors.SetupRefused: 403,
    errors.ApprovalNotFound: 404,
    errors.ApprovalRefused: 403,
    refusals.NotFound: 404,
    refusals.Outdated: 412,
    refusals.ConditionMissing: 428,
    refusals.KeyReused: 422,
    refusals.AddressRefused: 422,
    refusals.TooLarge: 413,
    refusals.TooSlow: 408,
    refusals.WrongHost: 421,
}
"""By class; a class that is not here is what the nearest of its bases is."""

DECLARED = (400, 401, 403, 404, 409, 413, 422, 429, 500, 503)

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase} for status in DECLARED
} | {"default": {"description": "Any other problem."}}
"""For ``responses=`` of routes and routers. What all of them look like, ``api.openapi`` says once: a model here would be made
again for each status of each route."""


def status_of(error: LanfreeError | type[LanfreeError]) -> int:
    """The HTTP status of an error. 500 for what has none, which a test keeps from happening."""
    kind = error if isinstance(error, type) else type(error)
    return next((STATUS[base] for base in kind.__mro__ if base in STATUS), 500)


def said(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    instance: str = "",
    fields: Sequence[FieldError] | None = None,
) -> Problem:
    """The problem. ``fields``: of a request that was not understood."""
    return Problem(
        type=f"urn:lanfree:problem:{code}",
        title=code.replace("-", " ").capitalize(),
        status=status,
        detail=_encodable(detail),
        instance=instance or f"urn:uuid:{uuid4()}",
        code=code,
        hint=_encodable(hint),
        errors=list(fields) if fields else None,
    )


def problem_of(error: LanfreeError, instance: str = "") -> Problem:
    """What the domain refused."""
    fields = None
    if isinstance(error, refusals.FieldRefused):
        fields = [FieldError(place="body", pointer=error.pointer, code=error.code, detail=_encodable(error.detail))]
    return said(status_of(error), error.code, error.message, hint=error.hint, instance=instance, fields=fields)


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem as an answer."""
    return JSONResponse(
        problem.model_dump(exclude_none=True), problem.status, dict(headers or {}), media_type=MEDIA_TYPE
    )


def _encodable(text: str) -> str:
    """Whatever names of files or guests brought into a message."""
    return text.encode("utf-8", "backslashreplace").decode()


def instance_of(request: Request) -> str:
    """The request's number in the log; made by ``api.limits.Numbered``."""
    return str(request.scope.get("state", {}).get("instance", ""))


def of_error(error: LanfreeError, instance: str = "") -> JSONResponse:
    """What the domain refused, as an answer."""
    status = status_of(error)
    headers = {}
    if isinstance(error, TryAgain) or status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(max(1, round(getattr(error, "after", RETRY_AFTER))))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="lanfree"'
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.warning("%s: %s", instance, error.message, extra={"event": "api-problem", "code": error.code})
    return answer(problem_of(error, instance), headers)


def of_exception(error: BaseException, instance: str) -> JSONResponse:
    """What nobody expected: what it was is in the log, under the number that the answer tells."""
    _LOG.error("%s: unexpected %s", instance, type(error).__name__, exc_info=error, extra={"event": "api-incident"})
    hint = "the log has it under this instance; please report it"
    return answer(said(500, "internal", "something unexpected happened", hint=hint, instance=instance))


def install(app: FastAPI) -> None:
    """Let the application answer with problems whatever happens in it."""
    app.add_exception_handler(LanfreeError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LanfreeError)  # noqa: S101  # registered for it
    return of_error(error, instance_of(request))


def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    detail = error.detail if isinstance(error.detail, str) else phrase
    return answer(said(error.status_code, code, detail, instance=instance_of(request)), error.headers)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it
    fields = [_field(one) for one in error.errors()]
    detail = "; ".join(f"{field.pointer}: {field.detail}" for field in fields[:3])
    return answer(said(422, "invalid", detail, instance=instance_of(request), fields=fields))


def _field(error: Mapping[str, Any]) -> FieldError:
    """Without what was sent (``input``, ``ctx``): it may hold a secret."""
    place, *path = (str(part) for part in error["loc"])
    if place == "body":
        pointer = "#" + "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
    else:
        pointer = ".".join(path)
    return FieldError(place=place, pointer=pointer, code=str(error["type"]), detail=str(error["msg"]))
