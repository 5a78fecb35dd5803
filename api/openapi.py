"""The OpenAPI document: what the routes say, and what is true of all of them.

FastAPI writes down parameters, bodies and answers. Here comes what stands around the routes: who may ask (``security``, and the
permission as ``x-permission``), the problems that every operation may answer with, keys and conditions that are headers, and
what the tags mean. A test walks over the result.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from api.asgi import PREFIX
from api.auth.sessions import COOKIE, CSRF_HEADER
from api.deps import needs_caller, permission_of
from api.errors import MEDIA_TYPE, Problem

DESCRIPTION = f"""Everything that Lanfree's command line and console do.

**Who asks.** A program sends `Authorization: Bearer TOKEN`. A browser has a session's cookie; what it changes carries
`{CSRF_HEADER}` as `GET {PREFIX}/session` tells it. Each operation needs the permission that it names as `x-permission`; what
it is about must be among the machines that the caller reaches.

**Long work** answers 202 with `Location` of the run or task that does it. With an `Idempotency-Key` a POST is done once,
however often it is sent within a day.

**Lists** come in pages: `next` of one is the `cursor` of the next, with the other parameters unchanged.

**Problems** are RFC 9457 documents with a stable `code` and a `hint`. Times are RFC 3339 in UTC, sizes are bytes, durations are
seconds.
"""

TAGS = {
    "system": "Health, metrics, settings of the appliance.",
    "setup": "The first administrator.",
    "session": "Signing in and out.",
    "users": "People who may sign in.",
    "tokens": "Ways in for programs.",
    "approvals": "What waits for a second person.",
    "audit": "Who did what, in a chain that shows what was removed.",
    "hypervisors": "Where machines are.",
    "machines": "Virtual machines, and what protects them.",
    "restore-points": "What can be restored.",
    "files": "Names and contents of files inside restore points.",
    "mount-sessions": "Restore points that are open for their files.",
    "jobs": "Policies that run by themselves.",
    "job-runs": "What jobs did, and are doing.",
    "tasks": "Single pieces of work: one machine, one purpose.",
    "restores": "Whole machines, put back.",
    "repositories": "Where restore points are kept.",
    "proxies": "Who does the work.",
    "reports": "Overviews for people.",
    "events": "That something changed, as it does.",
}

SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of `/tokens`."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A browser's session."},
}

_METHODS = frozenset({"get", "put", "post", "delete", "patch"})

_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "One for each thing that is to be done: the same one again gives the same answer, and does nothing.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The document; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            description=DESCRIPTION,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            routes=app.routes,
        )
        _complete(made, {(method, path): route for method, path, route in operations(app)})
        app.openapi_schema = made
    return app.openapi_schema


def operations(app: FastAPI) -> Iterator[tuple[str, str, APIRoute]]:
    """Method, path, and route of everything that the API offers, listed or not."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                yield method, str(context.path_format), route


def _complete(made: dict[str, Any], routes: Mapping[tuple[str, str], APIRoute]) -> None:
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_models())
    made["components"]["securitySchemes"] = SCHEMES
    used: set[str] = set()
    for path, item in made["paths"].items():
        for method in _METHODS & item.keys():
            _operation(item[method], method, routes[method.upper(), path])
            used.update(item[method].get("tags", ()))
    made["tags"] = [{"name": name, "description": words} for name, words in TAGS.items() if name in used]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)


def _operation(said: dict[str, Any], method: str, route: APIRoute) -> None:
    permission = permission_of(route)
    if permission is not None:
        said["x-permission"] = permission.value
    said["security"] = [{"token": []}, {"session": []}] if needs_caller(route) else []
    answers = said["responses"]
    for status in [status for status in answers if status[0] in "45" and _is_problem(answers[status])]:
        answers[status] = {"description": answers[status].get("description", "Problem"), **_PROBLEM}
    answers["default"] = {"description": "A problem.", **_PROBLEM}
    if method == "post" and needs_caller(route):
        said.setdefault("parameters", []).append(_KEY)


def _is_problem(answer: Mapping[str, Any]) -> bool:
    """Not so: what a route answers for itself with such a status (a health that is none)."""
    said = answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    return said.rpartition("/")[2] in ("", "Problem", "HTTPValidationError")


def _models() -> dict[str, Any]:
    made = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**made.pop("$defs", {}), "Problem": made}
