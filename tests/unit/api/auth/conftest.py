"""An appliance whose people sign in for real: cookies, tokens and passwords of its own access database."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.auth import people, sessions
from api.auth.access import Access, Rules
from api.auth.passwords import Cost
from api.auth.roles import EVERY_MACHINE, Caller, Permission, Role
from api.desk import Desk
from appliance.web.desk import desk_of
from catalog.access.values import User
from tests.unit.api.api_site import ApiSite

CHEAP = Cost(memory=8, passes=1, lanes=1)
"""What protects nothing and takes no time."""

PASSWORD = "a donkey sings at noon"

ROOT = Caller("root", frozenset(Permission))


class Clock:
    """A time that tests move on."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 23, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def goes_on(self, **by: float) -> None:
        self.time += timedelta(**by)


class People:
    """Users and their browsers."""

    def __init__(self, app: FastAPI, access: Access) -> None:
        self.app = app
        self.access = access

    def add(
        self, name: str, *roles: Role, machines: tuple[str, ...] = EVERY_MACHINE, password: str | None = PASSWORD
    ) -> User:
        return people.add(self.access, ROOT, name, password, roles, machines=machines)

    def browser(self, name: str = "", *, remote: str = "192.0.2.7") -> TestClient:
        """Signed in, with the header that its changes need; nobody is signed in without a name."""
        client = TestClient(self.app, base_url="https://testserver", client=(remote, 50000))
        if name:
            begun = sessions.begin(self.access, name, remote=remote)
            client.cookies.set(sessions.COOKIE, begun.cookie, domain="testserver.local")
            client.headers[sessions.CSRF_HEADER] = begun.csrf
        return client

    def program(self, secret: str) -> TestClient:
        """With a token."""
        return TestClient(self.app, base_url="https://testserver", headers={"Authorization": f"Bearer {secret}"})

    def rules(self, **changed: Any) -> None:
        """Of the site, from now on."""
        self.app.state.desk = replace(
            self.app.state.desk, access=replace(self.access, rules=lambda: replace(Rules(), **changed))
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(site: ApiSite, clock: Clock) -> Access:
    return Access(lambda: site.services.access, cost=CHEAP, now=clock)


@pytest.fixture
def desk(site: ApiSite, access: Access) -> Desk:
    return replace(desk_of(site.services), access=access)


@pytest.fixture
def known(one_app: FastAPI, desk: Desk) -> Iterator[People]:
    before, one_app.state.desk = one_app.state.desk, desk
    yield People(one_app, desk.access)
    one_app.state.desk = before


@pytest.fixture
def admin(known: People) -> TestClient:
    """The browser of ``admin``, an administrator."""
    known.add("admin", Role.ADMINISTRATOR)
    return known.browser("admin")


@pytest.fixture
def recorded(desk: Desk) -> Callable[[], Sequence[tuple[str, str]]]:
    """Who did what, as the access log has it, the oldest first."""

    def entries() -> Sequence[tuple[str, str]]:
        from api.ports.audit import AuditFilter  # noqa: PLC0415

        return [(each.who, each.action) for each in desk.audit.entries(AuditFilter(), before=None, limit=100)][::-1]

    return entries
