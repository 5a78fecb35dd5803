"""Whatever a client makes of the OpenAPI document is answered as the document says, and never by an error of ours.

Schemathesis makes requests that the document allows and such that it does not, the same in each run; half of them name what is
there. A refused request is as good as one that succeeds; a 5xx, or an answer that the document does not describe, is not.
"""

import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import Any

import pytest
import schemathesis.openapi
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks

from api.asgi import PREFIX
from api.auth.roles import Role
from api.openapi import TAGS
from tests.unit.api.api_site import ApiSite, Callers
from tests.unit.api.guest_volumes import Guests, volume

pytestmark = pytest.mark.slow

EXAMPLES = 5
"""Of each kind, for each operation: together they take some seconds a tag."""

CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
)

LONG = frozenset({"GET /api/v1/impact/now"})
"""It measures for seconds."""

STREAMS = frozenset({"GET /api/v1/events"})
"""They end with the process, and are not what schemathesis reads; ``test_events`` asks them."""


@pytest.fixture(scope="session")
def described(one_app: FastAPI) -> Any:
    """The document, as schemathesis reads it."""
    return schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", one_app)


class Asked:
    """Asks operations of one caller, and notes what is not as the document says."""

    def __init__(self, site: ApiSite, headers: dict[str, str], known: dict[str, list[str]]) -> None:
        self._site = site
        self._headers = headers
        self._known = known
        self.calls = 0
        self.wrong: list[str] = []

    def ask(self, operation: Any) -> None:
        """Of both kinds."""
        examples = 1 if operation.label in LONG else EXAMPLES
        for mode in GenerationMode:
            some = settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            allowed = st.just(mode is GenerationMode.POSITIVE)
            made = operation.as_strategy(generation_mode=mode)

            def one(case: Any, which: int, allowed: bool) -> None:
                self._one(case, which, allowed=allowed)

            # Without any parameter there is no request that the document does not allow.
            with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
                some(given(case=made, which=st.integers(0, 3), allowed=allowed)(one))()

    def _name(self, said: Any, which: int) -> None:
        """Put what is there in place of what was made up."""
        for name in said if isinstance(said, dict) else ():
            there = self._known.get(name, [])
            if which < len(there) and isinstance(said[name], str):
                said[name] = there[which]

    def _one(self, case: Any, which: int, *, allowed: bool) -> None:
        for said in (case.path_parameters, case.query, case.body) if allowed else ():
            self._name(said, which)
        self.calls += 1
        answer = case.call(headers=self._headers)
        try:
            # A body may also be refused for its size, which the check does not know.
            wanted = CHECKS if answer.status_code != 413 else CHECKS[:-1]
            case.validate_response(answer, checks=wanted)
        except (Failure, FailureGroup) as failure:
            parts = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
            said = "; ".join(f"{part.title}: {part.message}" for part in parts if isinstance(part, Failure))
            self.wrong.append(f"{answer.status_code} {case.as_curl_command()[:400]}\n    {said[:800]}")


@pytest.fixture
def populated(site: ApiSite, app: FastAPI) -> Iterator[dict[str, list[str]]]:
    """Two machines with restore points, one of them with files, a job; and what they are called."""
    guests = Guests(site)
    db, web = site.machine("db-1"), site.machine("web-1", host="h2")
    new, old, other = site.point(db), site.point(db, ago=timedelta(days=1)), site.point(web)
    for point, text in ((new, b"new"), (old, b"old"), (other, b"")):
        root = volume()
        root.add_file(b"/etc/hosts", text)
        root.add_file(b"/srv/na\xefve.txt", b"odd")
        guests.hold(point, root, index=True)
    job = site.job("nightly")
    points = [new.id, old.id, other.id]
    yield {
        "id": [*points, db, job.id],
        "machine": [db, web],
        "name": ["nightly", "admin", "repository", "h1"],
        "path": ["/etc/hosts", "/etc", "/"],
        **dict.fromkeys(("point", "before", "after"), points),
    }
    app.state.desk.mounts.close()


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag != "events"])
@pytest.mark.timeout(600)
def test_every_answer_is_as_the_document_says(
    tag: str, described: Any, site: ApiSite, app: FastAPI, populated: dict[str, list[str]]
) -> None:
    client = Callers(app, site.services).client(Role.ADMINISTRATOR, name="admin")
    # Event streams end at once: they are told that the process does.
    app.state.web.ending.set()
    asked = Asked(site, dict(client.headers), populated)
    before = threading.active_count()  # tests before this one leave some, of pools
    try:
        for found in described.get_all_operations():
            operation = found.ok()
            if tag in operation.tags and operation.label not in STREAMS:
                asked.ask(operation)
    finally:
        app.state.web.ending.clear()
    assert not asked.wrong, "\n".join(asked.wrong[:10])
    assert asked.calls >= EXAMPLES
    assert threading.active_count() - before < 100
