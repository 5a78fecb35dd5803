"""The appliance's own restore points: made when something changed, in every repository, and nowhere in the way."""

import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance import operations, storage
from appliance.protection.backup import ProtectReport, machine_of, place_of, protect
from appliance.wiring import Services
from catalog import portable
from catalog.rebuild import rebuild
from proxy.errors import DeleteRefused, MachineBusy, MountFailed, RepositoryFull
from proxy.model import RestorePoint
from proxy.repository import PosixStore, rescue
from proxy.repository import open as open_repository
from proxy.repository.copy import Outcome, copy_points
from proxy.units import MiB
from tests.unit.appliance.protection.conftest import CHAP, NOON, PASSWORD, SECRETS, TOKEN, Site, holds_none_of

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


def own_points(services: Services) -> list[RestorePoint]:
    return list(services.repository.points(machine_of(services.repository)))


def image(services: Services, point: RestorePoint, key: str) -> bytes:
    with services.repository.open_image(point, key) as opened:
        out = bytearray(opened.size)
        opened.read_into(0, memoryview(out))
    return bytes(out)


def test_all_of_it_is_in_one_restore_point_of_both_repositories(services: Services, tmp_path: Path) -> None:
    report = protect(services, NOON)
    assert report.problems == ()
    assert [(each.made, each.secrets) for each in report.targets] == [(True, True), (True, True)]
    (point,) = own_points(services)
    assert (point.machine_name, point.of_appliance, point.created_at) == ("lanfree", True, NOON)
    assert {i.key for i in point.images} == {"state", "catalog", "audit", "jobs"}
    state = image(services, point, "state")
    assert all(secret in state for secret in (PASSWORD, CHAP, TOKEN))
    (tmp_path / "jobs.db").write_bytes(image(services, point, "jobs"))
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as jobs:
        assert jobs.execute("SELECT name FROM jobs").fetchall() == [("nightly",)]
    with storage.opened(services.settings.copy_to[0], None) as vault:
        assert [p.id for p in vault.points()] == [point.id]


@pytest.mark.slow
def test_nothing_is_made_when_nothing_changed(services: Services) -> None:
    first = protect(services, NOON)
    assert first.made
    again = protect(services, NOON + timedelta(hours=1))
    assert not again.made
    assert [each.point for each in again.targets] == [each.point for each in first.targets]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["configuration", "password", "job", "kept key", "point"])
def test_whatever_changes_is_protected_again(site: Site, services: Services, change: str) -> None:
    protect(services, NOON)
    match change:
        case "configuration":
            site.path.write_text(f"{site.path.read_text()}# one more line\n")
        case "password":
            (site.base / "etc" / "vc.password").write_bytes(b"a new one\n")
        case "job":
            with services.jobs.transaction() as unit:
                unit.jobs.enable("nightly", False, NOON)
        case "kept key":
            assert services.unlock.remove("m1", services.unlock.kept("m1")[0].id)
        case "point":
            operations.record(services, site.machine_point(services.repository, 1))
    assert protect(services, NOON + timedelta(hours=1)).made
    assert len(own_points(services)) == 2


@pytest.mark.slow
def test_its_own_rules_keep_the_newest_and_those_of_months_in_both_repositories(site: Site, services: Services) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[protect]\nlast = 3\nmonthly = 2\n")
    with site.services() as opened:
        for day in range(0, 100, 10):
            (site.base / "etc" / "token").write_text(f"{day}\n")
            report = protect(opened, NOON - timedelta(days=100 - day))
        kept = [f"{p.created_at:%m-%d}" for p in own_points(opened)]
        with storage.opened(opened.settings.copy_to[0], None) as vault:
            copies = [f"{p.created_at:%m-%d}" for p in vault.points()]
    assert kept == copies == ["10-23", "11-02", "11-12"]
    assert report.problems == ()


@pytest.mark.slow
def test_the_rules_for_machines_do_not_touch_it_and_its_own_do_not_touch_machines(site: Site) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[retention]\nlast = 1\n[protect]\nlast = 1\nmonthly = 0\n")
    with site.services() as services:
        site.machine_point(services.repository, 1)
        for hour in range(2):
            (site.base / "etc" / "token").write_text(f"{hour}\n")
            protect(services, NOON + timedelta(hours=hour))
        assert len(services.repository.points("m1")) == 2
        assert len(own_points(services)) == 1


@pytest.mark.slow
def test_lists_of_machines_and_the_catalog_do_not_have_it(services: Services) -> None:
    protect(services, NOON)
    assert {p.machine for p in operations.points_of(services, None)} == {"m1"}
    assert [p.machine_name for p in operations.points_of(services, "lanfree")] == ["lanfree"]
    rebuild(services.catalog, services.repository)
    with services.catalog.transaction(write=False) as unit:
        assert {listed.point.machine for listed in unit.restore_points.list()} == {"m1"}


@pytest.mark.slow
def test_the_last_one_is_deleted_by_nobody(services: Services) -> None:
    protect(services, NOON)
    with pytest.raises(DeleteRefused):
        services.repository.delete(own_points(services)[0].id)


@pytest.mark.slow
def test_one_at_a_time(services: Services) -> None:
    with services.interlock.run(machine_of(services.repository), "other"), pytest.raises(MachineBusy, match="other"):
        protect(services, NOON)
    assert protect(services, NOON).made


@pytest.mark.slow
def test_a_second_repository_that_is_away_is_told_and_the_first_has_it(site: Site, services: Services) -> None:
    (site.base / "vault").rename(site.base / "elsewhere")
    report = protect(services, NOON)
    assert [each.made for each in report.targets] == [True, False]
    assert report.problems[0].startswith("vault: ")


@pytest.mark.slow
def test_a_file_that_is_gone_is_told_and_the_rest_protected(site: Site, services: Services) -> None:
    (site.base / "etc" / "token").unlink()
    report = protect(services, NOON)
    assert report.made
    assert report.problems == (f"not protected: {site.base}/etc/token (witness.token_file): no such file",)


def test_secrets_are_in_no_file_no_log_and_no_report(
    site: Site, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        report = protect(services, NOON)
    assert holds_none_of(SECRETS, site.base / "repo", site.base / "vault", site.base / "state")
    said = f"{caplog.text}{report!r}{report.problems}".encode()
    assert not any(secret in said for secret in SECRETS)


HOOKS = """
[[witness]]
url = "https://notes.example/take?apikey=0815"

[[notify]]
name = "tickets"   # the way to the operators
kind = "webhook"
url = "https://hooks.example/services/T0/B1/x9"
"""


@pytest.mark.slow
def test_a_repository_in_the_clear_gets_the_state_without_secrets_and_says_so(site: Site) -> None:
    text = site.path.read_text().replace(f'key_file = "{site.base}/etc/vault.key"', "unencrypted = true", 1)
    text += HOOKS
    site.path.write_text(text.replace(f"{site.base}/vault", f"{site.base}/open"))
    with site.services() as services:
        storage.made(services.settings.copy_to[0], site.base / "cache", services.clock)
        report = protect(services, NOON)
        assert [(each.made, each.secrets) for each in report.targets] == [(True, True), (True, False)]
        assert report.problems == ()
        (remark,) = report.remarks
        assert remark.startswith("vault is not encrypted: passwords, keys, and what follows the host in addresses")
        assert remark.endswith("all else of the configuration file is")
        with storage.opened(services.settings.copy_to[0], None) as there:
            with there.open_image(there.points()[0], "state") as opened:
                found = bytearray(opened.size)
                opened.read_into(0, memoryview(found))
            assert b"# written by a person" in found
            assert not any(secret in found for secret in (*SECRETS, b"T0/B1/x9", b"apikey"))
            assert b"# the way to the operators" in found
            (site.base / "etc" / "token").write_text("changed\n")
            services.settings.copy_to[0].path.rename(site.base / "away")
            assert len(protect(services, NOON + timedelta(hours=1)).problems) == 1
            (site.base / "away").rename(services.settings.copy_to[0].path)
            # What a person copies by hand takes no secrets there either.
            outcomes = {copied.machine_name: copied.outcome for copied in copy_points(services.repository, there)}
            assert outcomes == {"lanfree": Outcome.LEFT_OUT, "web": Outcome.COPIED}


@pytest.mark.slow
def test_it_can_be_left_out(site: Site) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[protect]\nenabled = false\n")
    with site.services() as services:
        assert protect(services, NOON) == ProtectReport(enabled=False)
        assert own_points(services) == []


@pytest.mark.slow
def test_each_proxy_keeps_its_own_and_makes_none_for_the_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[protect]\nlast = 2\nmonthly = 0\n")
    with site.services() as services:
        for hour in range(5):
            monkeypatch.setattr(socket, "gethostname", lambda: "busy")
            (site.base / "etc" / "token").write_text(f"{hour}\n")
            assert protect(services, NOON + timedelta(hours=hour)).made
            if hour in {0, 4}:
                monkeypatch.setattr(socket, "gethostname", lambda: "quiet")
                assert protect(services, NOON + timedelta(hours=hour, minutes=1)).made
                assert not protect(services, NOON + timedelta(hours=hour, minutes=2)).made
        found = [(point.host, point.created_at.hour) for point in own_points(services)]
    assert found == [("quiet", 12), ("busy", 15), ("busy", 16), ("quiet", 16)]


@pytest.mark.slow
def test_where_room_is_short_the_index_of_files_is_left_out(
    services: Services, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(services)
    sizes = {part.name: portable.size_of(place, part) for part in portable.PARTS}
    room = max(sizes["jobs"], sizes["audit"]) + 64 * MiB
    assert room < sizes["catalog"] + 64 * MiB
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    report = protect(services, NOON)
    assert {i.key for i in own_points(services)[0].images} == {"state", "audit", "jobs"}
    assert report.problems[0].startswith("not protected: the index of files: ")


@pytest.mark.slow
def test_the_catalog_can_be_left_out(site: Site) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[protect]\ncatalog = false\n")
    with site.services() as services:
        protect(services, NOON)
        assert {i.key for i in own_points(services)[0].images} == {"state", "audit", "jobs"}


class Deadly(PosixStore):
    """Kills the process, as ``kill -9`` does, before it puts its n-th object."""

    left = 0

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        super().put(name, data, new=new)


def protect_until(site: Site, puts: int) -> int:
    """In a process of its own; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        with site.services() as services:
            store = Deadly(site.base / "repo")
            store.left = puts
            secret = storage.secret_of(services.settings.repository)
            services.__dict__["repository"] = open_repository(store, secret=secret, cache=site.base / "cache")
            made = protect(services, NOON + timedelta(hours=1)).targets[0].made
            os._exit(0 if made else 1)
    except BaseException as error:  # noqa: BLE001  # the child must not go on as the test
        print(repr(error), file=sys.stderr)
    os._exit(2)


@pytest.mark.slow
def test_killed_before_any_object_is_written_the_older_point_stands_and_the_next_is_whole(
    site: Site, services: Services
) -> None:
    protect(services, NOON)
    (old,) = own_points(services)
    before = image(services, old, "state")
    services.close()
    (site.base / "etc" / "token").write_text("changed\n")
    for puts in range(40):
        ended = protect_until(site, puts)
        with site.services() as after:
            points = own_points(after)
            assert image(after, points[0], "state") == before
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            assert points == [old]
    assert puts > 4
    assert len(points) == 2
    assert not (site.base / "state" / "protect").exists()


@pytest.mark.slow
def test_what_a_killed_one_left_on_disk_is_gone_after_the_next(site: Site, services: Services) -> None:
    left = site.base / "state" / "protect" / "tmp123"
    left.mkdir(parents=True)
    (left / "catalog.db").write_bytes(b"half")
    protect(services, NOON)
    assert not left.parent.exists()


@pytest.mark.slow
def test_a_full_repository_is_told(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RepositoryFull("the disk")

    monkeypatch.setattr(services.repository.store, "put", full)
    report = protect(services, NOON)
    assert report.targets[0].problem == "no space left in the disk"
    assert report.targets[1].made


@pytest.mark.slow
def test_the_command_says_what_it_did_and_what_needs_attention(lanfree_of: Lanfree, site: Site) -> None:
    code, document, _ = lanfree_of("protect")
    assert code == 0
    assert [target["made"] for target in document["targets"]] == [True, True]
    (site.base / "etc" / "token").unlink()
    code, document, said = lanfree_of("protect")
    assert code == 7
    assert "not protected" in said
    assert not any(secret.decode() in said for secret in SECRETS)


@pytest.fixture
def lanfree_of(command_line: Lanfree, site: Site) -> Lanfree:
    return lambda *words: command_line(site.path, *words)


@pytest.mark.slow
def test_prune_does_not_name_it(lanfree_of: Lanfree, site: Site) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[retention]\nlast = 1\n")
    lanfree_of("protect")
    code, document, _ = lanfree_of("prune")
    assert code == 0
    assert "lanfree" not in str(document)


@pytest.mark.slow
def test_it_is_no_machine_whose_files_could_be_opened(lanfree_of: Lanfree, services: Services) -> None:
    protect(services, NOON)
    (point,) = own_points(services)
    with pytest.raises(MountFailed, match="no machine"), services.mount(point):
        pass
    with services.catalog.transaction(write=False) as unit:
        assert {listed.point.machine for listed in unit.restore_points.list()} == {"m1"}


@pytest.mark.slow
def test_it_can_be_read_without_lanfree(services: Services, site: Site, tmp_path: Path) -> None:
    protect(services, NOON)
    (point,) = own_points(services)
    program = tmp_path / "rescue.py"
    program.write_text(rescue.source())
    key, out = site.base / "etc" / "repository.key", tmp_path / "state.tar"
    words = ["--key-file", key, site.base / "repo", "restore", point.id, "state", out]
    subprocess.run([sys.executable, program, *words], check=True, capture_output=True, timeout=60)
    with tarfile.open(out) as tar:
        assert f"files{site.base}/etc/vc.password" in tar.getnames()
        configuration = tar.extractfile("configuration")
        assert configuration is not None
        assert configuration.read() == site.path.read_bytes()


@pytest.mark.slow
def test_a_point_of_the_future_is_not_what_there_is_already(services: Services) -> None:
    ahead = protect(services, NOON + timedelta(days=1)).targets[0].point
    now = protect(services, NOON).targets[0]
    assert now.made
    assert {p.id for p in own_points(services)} == {ahead, now.point}
