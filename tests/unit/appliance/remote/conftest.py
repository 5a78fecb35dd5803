"""``lanfree --server`` in this process: the commands that ask, and an appliance whose real API answers them."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.client import Client
from appliance.cli import app as command_line
from appliance.cli import commands
from appliance.cli.remote import REMOTE
from tests.unit.api.conftest import api, api_template, app, callers, one_app, site  # noqa: F401  # fixtures

URL = "https://testserver"

Asked = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="session")
def remote_commands() -> tuple[list[Any], list[Any]]:
    """Commands and groups of those that ask. They bear the names of those of this machine, which stay what they are."""
    whole = command_line.app
    own = whole.registered_commands, whole.registered_groups
    whole.registered_commands, whole.registered_groups = [], []
    try:
        commands.register([*REMOTE, f"--server={URL}"])
        return whole.registered_commands, whole.registered_groups
    finally:
        whole.registered_commands, whole.registered_groups = own


@pytest.fixture
def remote(
    remote_commands: tuple[list[Any], list[Any]],
    api: TestClient,  # noqa: F811  # the fixture
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Asked:
    """``remote(*words, client=Client)``: exit code, the one JSON document, what was said on stderr; as administrator."""
    token = api.headers["Authorization"].removeprefix("Bearer ")

    def run(*words: str, client: type[Client] = Client) -> tuple[int, Any, str]:
        made, groups = remote_commands
        monkeypatch.setattr(command_line.app, "registered_commands", made)
        monkeypatch.setattr(command_line.app, "registered_groups", groups)
        monkeypatch.setattr(
            command_line.Context, "asking", lambda _self: client(URL, token=token, transport=api._transport)
        )
        monkeypatch.setattr(sys, "argv", ["lanfree", "--json", "--server", URL, *words])
        capfd.readouterr()
        code = command_line.run()
        said = capfd.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out), said.err

    return run
