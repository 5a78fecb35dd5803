"""``lanfree --server``: the same commands, asked of a real console over TLS, as somebody who signed in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.auth.roles import Role
from appliance.web import tls
from tests.integration.web.console import PASSWORD, Console

pytestmark = [pytest.mark.tools, pytest.mark.requires("chromium")]

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def lanfree(console: Console, tmp_path: Path) -> Lanfree:
    """``lanfree(*words, said="stdin")``: exit code, JSON document, what was said on stderr. As a user of this machine who has
    no configuration of an appliance."""

    def run(*words: str, said: str = "", as_json: bool = True) -> tuple[int, Any, str]:
        argv = [sys.executable, "-W", "ignore", "-m", "appliance.cli", *(["--json"] if as_json else []), *words]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "LANFREE_CONFIG": str(tmp_path / "none.toml")}
        done = subprocess.run(
            argv, input=said, capture_output=True, text=True, timeout=300, env=environment, check=False
        )
        document = json.loads(done.stdout) if as_json and done.stdout.strip() else done.stdout
        return done.returncode, document, done.stderr

    return run


@pytest.fixture
def fingerprint(console: Console) -> str:
    """Of the appliance's own authority, as its console of root shows it."""
    settings = console.fleet.services.settings
    shown = tls.known(settings.web, settings.state.directory / "web")
    assert shown is not None
    return tls.authority_fingerprint(shown) or shown.fingerprint


@pytest.fixture
def asked(console: Console, lanfree: Lanfree, fingerprint: str) -> Lanfree:
    """The same, signed in as alice: ``asked(*words)``."""
    words = ("login", console.url, "--name", "alice", "--fingerprint", fingerprint)
    code, document, said = lanfree(*words, said=f"{PASSWORD}\n")
    assert code == 0, (document, said)
    assert document["user"] == "alice"

    def run(*words: str, **more: Any) -> tuple[int, Any, str]:
        return lanfree("--server", console.url, *words, **more)

    return run


def test_nobody_is_trusted_unseen(console: Console, lanfree: Lanfree) -> None:
    code, document, _ = lanfree("login", console.url, "--name", "alice", said=f"{PASSWORD}\n")
    assert code == 1
    assert document["error"]["code"] == "certificate-refused"
    code, document, _ = lanfree(
        "login", console.url, "--name", "alice", "--fingerprint", "00" * 32, said=f"{PASSWORD}\n"
    )
    assert (code, document["error"]["code"]) == (1, "certificate-refused")


def test_a_wrong_password_is_told_and_kept_nowhere(
    console: Console, lanfree: Lanfree, fingerprint: str, tmp_path: Path
) -> None:
    words = ("login", console.url, "--name", "alice", "--fingerprint", fingerprint)
    code, document, said = lanfree(*words, said="not-her-password\n")
    assert code == 1, said
    assert "not-her-password" not in json.dumps(document) + said
    assert not (tmp_path / "lanfree" / "servers.json").exists()


def test_who_is_not_signed_in_is_told_how(console: Console, lanfree: Lanfree) -> None:
    code, document, _ = lanfree("--server", console.url, "status")
    assert code == 1
    assert "lanfree login" in document["error"]["hint"]


def test_a_job_is_made_run_and_looked_at_from_afar(asked: Lanfree) -> None:
    code, made, said = asked("job", "add", "from-afar", "--select", "name=web-*", "--at", "22:00", "--keep-last", "3")
    assert code == 0, said
    assert made["policy"]["retention"]["last"] == 3
    code, seen, said = asked("job", "preview", "from-afar")
    assert code == 0, said
    assert sorted(machine["name"] for machine in seen["machines"]) == ["web-01", "web-02"]
    code, done, said = asked("job", "run", "from-afar", "--wait")
    assert code == 0, said
    assert [task["state"] for task in done["tasks"] if task["kind"] == "backup"] == ["done", "done"]
    code, edited, said = asked("job", "edit", "from-afar", "--keep-last", "9", "--set", "priority=4")
    assert code == 0, said
    assert (edited["policy"]["retention"]["last"], edited["policy"]["priority"]) == (9, 4)
    code, points, said = asked("points", "web-01")
    assert code == 0, said
    assert points[-1]["machine_name"] == "web-01"
    code, text, said = asked("job", "export", "from-afar", as_json=False)
    assert "from-afar" in text, said
    code, _, said = asked("job", "remove", "from-afar")
    assert code == 0, said


def test_a_machine_is_backed_up_and_its_restore_point_read_back(asked: Lanfree) -> None:
    code, task, said = asked("backup", "db-01")
    assert code == 0, said
    assert task["state"] == "done"
    code, read, said = asked("verify", task["point"])
    assert code == 0, said
    assert read["kind"] == "verify"
    code, _, said = asked("point", "hold", task["point"], "--why", "an audit")
    assert code == 0, said
    code, refused, _ = asked("point", "delete", task["point"])
    assert code != 0, "it is held"
    assert "error" in refused
    code, machines, said = asked("vm", "list")
    assert code == 0, said
    assert next(each for each in machines if each["name"] == "db-01")["protection"] == "protected"


def test_what_is_asked_of_the_wrong_machine_says_why(asked: Lanfree) -> None:
    code, document, _ = asked("serve")
    assert code == 1
    assert "cannot be asked of a server" in document["error"]["message"]
    code, document, _ = asked("backup", "no-such-machine")
    assert (code, document["error"]["code"]) == (1, "no-such-machine")


def test_a_token_reaches_no_farther_than_its_owner(console: Console, lanfree: Lanfree, fingerprint: str) -> None:
    console.user("olga", Role.AUDITOR)
    words = ("login", console.url, "--name", "olga", "--fingerprint", fingerprint)
    assert lanfree(*words, said=f"{PASSWORD}\n")[0] == 0
    code, document, _ = lanfree("--server", console.url, "backup", "db-01")
    assert code == 1
    assert "back-up" in json.dumps(document)
    code, _, said = lanfree("--server", console.url, "access-log", "check")
    assert code == 0, said


def test_who_signed_out_is_nobody_there(console: Console, asked: Lanfree, lanfree: Lanfree) -> None:
    assert lanfree("logout", console.url)[0] == 0
    code, document, _ = asked("status")
    assert code == 1
    assert "not signed in" in document["error"]["message"]


def test_the_repository_is_looked_after_from_afar(asked: Lanfree) -> None:
    code, made, said = asked("backup", "web-01")
    assert code == 0, said
    code, shown, said = asked("prune")
    assert code == 0, said
    assert {"keep"} == {line["verdict"] for line in shown["result"]["lines"] if line["point"] == made["point"]}
    code, text, said = asked("prune", as_json=False)
    assert (code, "RULES OF" in text, made["point"] in text) == (0, True, True), said
    code, checked, said = asked("audit")
    assert (code, checked["result"]["lines"]) == (0, []), said
    code, text, said = asked("audit", as_json=False)
    assert "every chain is whole" in text, said
    code, rebuilt, said = asked("catalog", "rebuild", "--no-files")
    assert (code, rebuilt["result"]["recorded"]) == (0, 0), said
    code, protected, said = asked("protect")
    assert (code, protected["kind"]) == (0, "protect"), said
    code, refused, _ = asked("repair", "nowhere")
    assert (code, refused["error"]["code"]) == (1, "configuration")
    code, why, said = asked("why-big", made["point"])
    assert (code, why["changed"]) == (0, sum(why["parts"].values())), said
