"""``lanfree unlock`` as a user runs it: keys are kept for a machine, tried when it is opened, never shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import config as configuration
from appliance.cli import app, site, unlock  # noqa: F401  # commands register themselves
from appliance.wiring import Services
from tests.integration.appliance.point_maker import PointMaker

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]
SECRET = b"a passphrase that nobody sees"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def machine(lanfree: Lanfree, tmp_path: Path, *options: str) -> Services:
    code, _, said = lanfree("init", *options, "--repository", str(tmp_path / "r"), "--state", str(tmp_path / "s"))
    assert code == 0, said
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    services = Services(configuration.load(tmp_path / "lanfree.toml"))
    PointMaker(services.repository).make("web", {"vda": tmp_path / "disk.img"})
    return services


def test_a_key_is_kept_listed_used_and_forgotten(lanfree: Lanfree, tmp_path: Path, secret_file: Path) -> None:
    with machine(lanfree, tmp_path) as services:
        (point,) = services.repository.points()
        code, kept, said = lanfree("unlock", "add", "web", "--secret-file", str(secret_file), "--volume", "/dev/sda3")
        assert (code, kept["volume"]) == (0, "/dev/sda3"), said
        assert [(k.volume, k.secret) for k in services.unlock.keys(point.machine)] == [("/dev/sda3", SECRET)]
        code, listed, more = lanfree("unlock", "list", "web")
        assert (code, listed) == (0, [kept]), more
        actions = [(entry.action, dict(entry.detail)) for entry in services.catalog.audit.list()]
        assert ("unlock", {"machine": point.machine, "change": "add", "volume": "/dev/sda3"}) in actions
        assert SECRET.decode() not in said + more + repr(actions)
        code, _, said = lanfree("unlock", "remove", "web", kept["id"])
        assert code == 0, said
        assert services.unlock.keys(point.machine) == []
        assert lanfree("unlock", "remove", "web", kept["id"])[0] != 0


def test_a_secret_that_others_may_read_is_refused(lanfree: Lanfree, tmp_path: Path, secret_file: Path) -> None:
    secret_file.chmod(0o644)
    with machine(lanfree, tmp_path) as services:
        code, _, said = lanfree("unlock", "add", "web", "--secret-file", str(secret_file))
        assert code != 0
        assert "chmod 600" in said
        assert services.unlock.keys(services.repository.points()[0].machine) == []


def test_a_repository_in_the_clear_keeps_no_keys(lanfree: Lanfree, tmp_path: Path, secret_file: Path) -> None:
    with machine(lanfree, tmp_path, "--unencrypted"):
        code, _, said = lanfree("unlock", "add", "web", "--secret-file", str(secret_file))
        assert code != 0
        assert "not encrypted" in said
        assert SECRET.decode() not in said
