"""What ``lanfree login`` leaves behind, here and there, when it is cut off."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth import people
from api.auth.roles import Caller, Permission, Role
from api.client import Client
from appliance.cli import login
from appliance.cli.servers import Known, servers
from appliance.web.access import access_of
from proxy.errors import ServerAway
from tests.unit.api.api_site import ApiSite
from tests.unit.appliance.remote.conftest import URL

pytestmark = pytest.mark.slow

PASSWORD = "a donkey sings at noon"


@pytest.fixture
def signing_in(
    site: ApiSite, api: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[type[Client]], None]:
    """As alice, who has trusted the server's authority and signed in before; by this client."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = Caller("root", frozenset(Permission))
    people.add(access_of(site.services), root, "alice", PASSWORD, [Role.OPERATOR])
    servers().keep(URL, Known("PEM", "lft_old", "old"))

    def sign_in(client: type[Client]) -> None:
        def made(url: str, *, authority: str | None = None, **more: Any) -> Client:
            assert authority == "PEM"
            return client(url, transport=api._transport, **more)

        monkeypatch.setattr(login, "Client", made)
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
        login.login(URL, name="alice", days=1, fingerprint=None)

    return sign_in


class Leaving(Client):
    """Of a server that goes away when the token is made."""

    def delete(self, path: str, **_more: Any) -> None:
        raise ServerAway(path, "gone")


class Refusing(Client):
    """Of a server that makes no token."""

    def post(self, type_: Any, path: str, body: Any = None, **more: Any) -> Any:
        raise ServerAway(path, "gone")


def sessions(site: ApiSite) -> int:
    with site.services.access.transaction(write=False) as unit:
        return len(unit.sessions.of("alice"))


def test_a_token_that_was_made_is_kept_though_the_server_goes_away(
    site: ApiSite, signing_in: Callable[[type[Client]], None]
) -> None:
    with pytest.raises(ServerAway):
        signing_in(Leaving)
    kept = servers().of(URL)
    assert kept.token_id != "old"
    with site.services.access.transaction(write=False) as unit:
        assert [token.id for token in unit.tokens.list("alice")] == [kept.token_id]


def test_a_login_that_gets_no_token_leaves_no_session(
    site: ApiSite, signing_in: Callable[[type[Client]], None]
) -> None:
    with pytest.raises(ServerAway):
        signing_in(Refusing)
    assert sessions(site) == 0
    assert servers().of(URL).token_id == "old"


def test_a_login_ends_its_session_and_takes_the_place_of_the_token_before(
    site: ApiSite, signing_in: Callable[[type[Client]], None]
) -> None:
    signing_in(Client)
    assert sessions(site) == 0
    assert servers().of(URL).token_id != "old"
