"""A new appliance from what the old one left in a repository."""

import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance import config, storage
from appliance.protection import backup, placing, unfinished
from appliance.protection.archive import archive
from appliance.protection.backup import machine_of, protect
from appliance.protection.bootstrap import Bootstrapped, Source, Wishes, bootstrap
from appliance.serving.liveness import FileLocks
from catalog.jobs.policy import Policy
from catalog.jobs.values import Cause, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.clock import SystemClock
from proxy.errors import ConfigurationError, FormatError, IntegrityError, KeyRefused, RestorePointNotFound
from proxy.model import RestorePoint
from proxy.repository import keys
from tests.unit.appliance.protection.conftest import NOON, SECRETS, VOLUME, Site

pytestmark = pytest.mark.slow

Lanfree = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def key(site: Site, tmp_path: Path) -> Path:
    """The repository's key, brought from the safe."""
    place = tmp_path / "safe" / "key"
    place.parent.mkdir()
    place.write_bytes((site.base / "etc" / "repository.key").read_bytes())
    place.chmod(0o600)
    return place


@pytest.fixture
def protected(site: Site, key: Path) -> dict[str, bytes]:
    """Two restore points of the appliance; every file of the configuration as it was at the second."""
    with site.services() as services:
        protect(services, NOON - timedelta(days=1))
        (site.base / "etc" / "token").write_bytes(b"token-4711-of-the-witness, the second\n")
        protect(services, NOON)
    return site.etc()


def source(site: Site, key: Path | None = None, **facts: Any) -> Source:
    """The appliance's own repository."""
    return Source(config.Repository(path=site.base / "repo", key_file=key), **facts)


def here(site: Site, **wishes: Any) -> Wishes:
    """The places that it had, said by a person."""
    return Wishes(configuration=site.path, state=site.base / "state", **wishes)


def check(site: Site) -> None:
    """Jobs, catalog, audit log and kept keys answer as before."""
    with site.services() as services:
        with services.jobs.transaction(write=False) as unit:
            assert [job.name for job in unit.jobs.list()] == ["nightly"]
            assert unit.jobs.get("nightly").policy == Policy(description="all of it")
        with services.catalog.transaction(write=False) as unit_of_catalog:
            assert "m1" in {listed.point.machine for listed in unit_of_catalog.restore_points.list()}
        assert [entry.action for entry in services.catalog.audit.list()] == ["bootstrap", "browse"]
        assert services.catalog.audit.check() == []
        assert [k.secret for k in services.unlock.keys("m1")] == [VOLUME]
        assert services.shared.get("vsphere/installation") == b"0123456789abcdef0123456789abcdef"


def own_points(site: Site) -> list[RestorePoint]:
    with site.services() as services:
        return list(services.repository.points(machine_of(services.repository)))


def damage(site: Site, point: RestorePoint, key: str) -> None:
    """What the storage holds of an image's index is not what was written."""
    image = point.image(key)
    assert image is not None
    path = site.base / "repo" / image.index
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def test_everything_comes_back_byte_by_byte_when_all_but_repository_and_key_is_lost(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    site.lose()
    done = bootstrap(source(site, key), Wishes())
    assert site.etc() == protected
    assert all((site.base / "etc" / name).stat().st_mode & 0o777 == 0o600 for name in protected)
    assert (site.base / "state").stat().st_mode & 0o777 == 0o700
    assert done.configuration == site.path == done.written[0]
    assert (done.made_at, done.added, done.passed_over, done.put_aside) == (NOON, 0, (), ())
    assert done.databases == ("audit.db", "catalog.db", "jobs.db")
    check(site)


def test_it_says_what_only_a_person_can_do(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    site.lose()
    told = "\n".join(bootstrap(source(site, key), Wishes()).to_do)
    for words in (
        "the old appliance is off",
        "reach iqn.2026-01.example.san:hosts at 10.0.0.1:3260 as initiator iqn.2026-11.org.lanfree:proxy",
        "host kvm1: qemu+ssh://root@kvm1/system wants an ssh key",
        "lanfree doctor",
    ):
        assert words in told


def test_restore_points_that_are_younger_are_listed_by_themselves(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    with site.services() as services:
        young = [site.machine_point(services.repository, minutes).id for minutes in (5, 10)]
    site.lose()
    done = bootstrap(source(site, key), Wishes())
    assert done.added == 2
    with site.services() as services, services.catalog.transaction(write=False) as unit:
        assert {listed.point.id for listed in unit.restore_points.list("m1")} > set(young)


def test_what_went_on_when_it_was_saved_has_ended(site: Site, key: Path) -> None:
    with site.services() as services:
        with services.jobs.transaction() as unit:
            job = unit.jobs.get("nightly")
            run = JobRun("run", job.id, job.name, job.policy, Cause.SCHEDULE, NOON, JobRunState.RUNNING, NOON)
            assert unit.runs.begin(run)
            waiting = Task("t1", "run", TaskKind.BACKUP, TaskState.WAITING, machine="m1", keys=("machine:m1",))
            unit.tasks.add([waiting, replace(waiting, id="t2", machine="m2", keys=("machine:m2",))])
            facts = ProxyFacts("p1", "proxy", NOON, NOON)
            unit.proxies.beat(facts)
            assert unit.tasks.claim(facts, NOON, services.limits) is not None
        protect(services, NOON)
    site.lose()
    bootstrap(source(site, key), Wishes())
    with site.services() as services, services.jobs.transaction(write=False) as unit:
        assert unit.runs.under_way() == []
        found = unit.runs.get("run")
        assert found is not None
        assert (found.state, found.notes) == (JobRunState.STOPPED, ("the appliance was lost while this went on",))
        assert {task.state for task in unit.tasks.of_run("run")} == {TaskState.STOPPED}
        assert unit.proxies.living(1e9) == []


def test_a_wrong_key_opens_nothing_and_leaves_nothing(site: Site, tmp_path: Path, protected: dict[str, bytes]) -> None:
    site.lose()
    wrong = tmp_path / "wrong"
    storage.write_key_file(wrong)
    with pytest.raises(KeyRefused) as refused:
        bootstrap(source(site, wrong), Wishes())
    assert wrong.read_text().strip() not in str(refused.value)
    assert not (site.base / "state").exists()
    assert site.etc() == {}


@pytest.mark.parametrize("image", ["state", "jobs"])
def test_the_one_before_is_taken_when_the_newest_is_damaged(
    site: Site, key: Path, protected: dict[str, bytes], image: str
) -> None:
    older, newest = own_points(site)
    damage(site, newest, image)
    site.lose()
    done = bootstrap(source(site, key), Wishes())
    assert done.point == older.id
    assert len(done.passed_over) == 1
    assert done.passed_over[0].startswith(newest.id)
    assert site.etc() == {**protected, "token": b"token-4711-of-the-witness\n"}
    check(site)


def test_the_one_that_is_asked_for_is_taken_or_nothing_is(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    older, newest = own_points(site)
    damage(site, newest, "state")
    machine = site.machine_point
    with site.services() as services:
        other = machine(services.repository, 5)
    site.lose()
    with pytest.raises(IntegrityError):
        bootstrap(source(site, key), Wishes(point=newest.id))
    with pytest.raises(RestorePointNotFound, match="it is of machine web"):
        bootstrap(source(site, key), Wishes(point=other.id))
    assert site.etc() == {}
    assert bootstrap(source(site, key), Wishes(point=older.id)).point == older.id


def test_when_none_is_whole_nothing_is_left(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    for point in own_points(site):
        damage(site, point, "catalog")
    site.lose()
    with pytest.raises(IntegrityError, match="none of them is whole"):
        bootstrap(source(site, key), Wishes())
    assert site.etc() == {}
    assert [path for path in (site.base / "state").rglob("*") if path.is_file()] == []


def test_an_appliance_that_is_there_is_not_touched(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    before = {path: path.read_bytes() for path in site.base.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match="there is an appliance already"):
        bootstrap(source(site, key), Wishes())
    assert {path: path.read_bytes() for path in site.base.rglob("*") if path.is_file()} == before


def test_nor_is_a_secret_that_is_another_now(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    site.lose("vc.password")
    (site.base / "etc" / "vc.password").write_bytes(b"somebody else's\n")
    with pytest.raises(ConfigurationError, match=r"vc\.password"):
        bootstrap(source(site, key), Wishes())
    assert site.etc() == {"vc.password": b"somebody else's\n"}


def test_with_force_what_was_there_is_put_aside(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    site.path.write_text("# spoilt\n")
    (site.base / "state" / "jobs.db").write_bytes(b"spoilt")
    (site.base / "state" / "workflows.db").write_bytes(b"what went on")
    done = bootstrap(source(site, key), Wishes(force=True, state=site.base / "state"))
    assert {name: data for name, data in site.etc().items() if "before-bootstrap" not in name} == protected
    aside = {path.name.partition(".before")[0]: path for path in done.put_aside}
    assert aside["lanfree.toml"].read_text() == "# spoilt\n"
    assert aside["jobs.db"].read_bytes() == b"spoilt"
    assert aside["workflows.db"].read_bytes() == b"what went on"
    assert not (site.base / "state" / "workflows.db").exists()
    check(site)


def test_of_another_place_the_configuration_says_so(
    site: Site, key: Path, protected: dict[str, bytes], tmp_path: Path
) -> None:
    site.lose()
    (site.base / "repo").rename(tmp_path / "mounted")
    there = Source(config.Repository(path=tmp_path / "mounted", key_file=key))
    done = bootstrap(there, Wishes(configuration=tmp_path / "new.toml", state=tmp_path / "var"))
    settings = config.load(tmp_path / "new.toml")
    assert (settings.repository.path, settings.state.directory) == (tmp_path / "mounted", tmp_path / "var")
    assert (tmp_path / "new.toml").read_text().startswith("# written by a person: comments stay")
    assert len(done.remarks) == 2
    site.path = tmp_path / "new.toml"
    check(site)


def test_a_system_that_is_not_started_yet_gets_it_below_its_root(
    site: Site, key: Path, protected: dict[str, bytes], tmp_path: Path
) -> None:
    site.lose()
    done = bootstrap(source(site, key), Wishes(root=tmp_path / "root"))
    placed = tmp_path / "root" / site.base.relative_to("/")
    assert done.configuration == placed / "etc" / "lanfree.toml"
    assert done.configuration.read_bytes() == protected["lanfree.toml"]
    assert (placed / "etc" / "vc.password").read_bytes() == protected["vc.password"]
    assert (placed / "state" / "jobs.db").is_file()
    assert site.etc() == {}


def test_a_copy_serves_too_and_the_first_repository_s_key_is_missing(
    site: Site, tmp_path: Path, protected: dict[str, bytes]
) -> None:
    vault = tmp_path / "vault.key"
    vault.write_bytes(protected["vault.key"])
    vault.chmod(0o600)
    site.lose()
    (site.base / "repo").rename(tmp_path / "burnt")
    done = bootstrap(Source(config.Repository(path=site.base / "vault", key_file=vault)), Wishes())
    assert site.etc() == {name: data for name, data in protected.items() if name != "repository.key"}
    assert any("repository.key: it lies in no repository" in step for step in done.to_do)


def test_what_was_printed_for_the_safe_makes_a_new_key_file(site: Site, protected: dict[str, bytes]) -> None:
    with site.services() as services:
        paper = keys.to_paper(services.repository.settings, services.repository.keyring)
    site.lose()
    done = bootstrap(source(site, paper=paper), Wishes())
    assert site.base / "etc" / "repository.key" in done.written
    assert site.etc()["repository.key"] != protected["repository.key"]
    assert "opens the repository by a new slot" in done.remarks[0]
    check(site)


def test_from_a_repository_in_the_clear_the_secrets_have_to_be_written_again(site: Site, tmp_path: Path) -> None:
    text = site.path.read_text().replace(f'key_file = "{site.base}/etc/repository.key"', "unencrypted = true", 1)
    site.path.write_text(text.replace(f"{site.base}/repo", f"{site.base}/open"))
    with site.services() as services:
        storage.made(services.settings.repository, tmp_path / "c", services.clock)
        (site.base / "state" / "unlock").rename(tmp_path / "kept")
        assert protect(services, NOON).made
    site.lose()
    done = bootstrap(Source(config.Repository(path=site.base / "open", unencrypted=True)), here(site))
    assert list(site.etc()) == ["lanfree.toml"]
    assert sum("holds no secrets" in step for step in done.to_do) == 5
    assert any(step.startswith("[[witness]]: compare its url, https://witness.example/") for step in done.to_do)


def test_databases_of_a_newer_lanfree_are_left_alone(site: Site, key: Path) -> None:
    with closing(sqlite3.connect(site.base / "state" / "jobs.db")) as jobs, jobs:
        jobs.execute("UPDATE jobs_alembic_version SET version_num = '9999'")
    with site.services() as services:
        protect(services, NOON)
    site.lose()
    with pytest.raises(FormatError, match="a newer version of Lanfree wrote it"):
        bootstrap(source(site, key), Wishes())
    assert site.etc() == {}
    assert [path for path in (site.base / "state").rglob("*") if path.is_file()] == []


def test_without_the_index_of_files_the_restore_points_are_listed_all_the_same(site: Site, key: Path) -> None:
    site.path.write_text(f"{site.path.read_text()}\n[protect]\ncatalog = false\n")
    with site.services() as services:
        protect(services, NOON)
    site.lose()
    done = bootstrap(source(site, key), Wishes())
    assert done.added == 1
    assert any("records the files of 1 restore points" in step for step in done.to_do)
    check(site)


def test_a_repository_in_the_clear_writes_no_file_where_it_likes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = site.path.read_text().replace(f'key_file = "{site.base}/etc/repository.key"', "unencrypted = true", 1)
    site.path.write_text(text.replace(f"{site.base}/repo", f"{site.base}/open"))
    monkeypatch.setattr(backup, "archive", lambda *arguments, secrets: archive(*arguments, secrets=True))  # the forger
    with site.services() as services:
        storage.made(services.settings.repository, tmp_path / "c", services.clock)
        (site.base / "state" / "unlock").rename(tmp_path / "kept")
        protect(services, NOON)
    site.lose()
    done = bootstrap(Source(config.Repository(path=site.base / "open", unencrypted=True)), here(site))
    assert list(site.etc()) == ["lanfree.toml"]
    assert "look at the configuration, and at the hooks of jobs" in done.remarks[0]


def test_nor_do_the_configuration_and_the_state_of_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = site.path.read_text().replace(f'key_file = "{site.base}/etc/repository.key"', "unencrypted = true", 1)
    site.path.write_text(text.replace(f"{site.base}/repo", f"{site.base}/open"))
    with site.services() as services:
        storage.made(services.settings.repository, tmp_path / "c", services.clock)
        (site.base / "state" / "unlock").rename(tmp_path / "kept")
        protect(services, NOON)
    site.lose()
    monkeypatch.delenv("LANFREE_CONFIG", raising=False)
    clear = Source(config.Repository(path=site.base / "open", unencrypted=True))
    done = bootstrap(clear, Wishes(root=tmp_path / "root"))
    assert done.configuration == tmp_path / "root" / "etc/lanfree/lanfree.toml"
    assert done.state == tmp_path / "root" / "var/lib/lanfree/state"
    assert config.load(done.configuration).state.directory == config.DEFAULT_STATE
    assert not (tmp_path / "root" / site.base.relative_to("/")).exists()


def test_nor_does_one_choose_a_server_that_gets_passwords(site: Site, tmp_path: Path) -> None:
    text = site.path.read_text().replace(f'key_file = "{site.base}/etc/repository.key"', "unencrypted = true", 1)
    site.path.write_text(text.replace(f"{site.base}/repo", f"{site.base}/open"))
    with site.services() as services, socket.create_server(("127.0.0.1", 0)) as server:
        storage.made(services.settings.repository, tmp_path / "c", services.clock)
        url = f"postgresql+psycopg://lanfree@127.0.0.1:{server.getsockname()[1]}/lanfree?connect_timeout=2"
        site.path.write_text(f'{site.path.read_text()}\n[database]\nurl = "{url}"\n')
        (site.base / "state" / "unlock").rename(tmp_path / "kept")
        assert protect(services, NOON).made
        site.lose()
        done = bootstrap(Source(config.Repository(path=site.base / "open", unencrypted=True)), here(site))
        assert any(remark.startswith("the databases wait in") for remark in done.remarks)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def forged(monkeypatch: pytest.MonkeyPatch, change: Callable[[backup.Contents], backup.Contents]) -> None:
    """What the next restore point says of itself."""
    made = backup._Work._contents
    monkeypatch.setattr(backup._Work, "_contents", lambda self, *, secrets: change(made(self, secrets=secrets)))


def test_images_that_no_appliance_has_are_refused(
    site: Site, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "up").mkdir()

    def renamed(contents: backup.Contents) -> backup.Contents:
        images = dict(contents.images)
        images["../../evil"] = images["jobs"]
        return contents.model_copy(update={"images": images})

    with site.services() as services:
        opening = backup._Work._open
        monkeypatch.setattr(
            backup._Work,
            "_open",
            lambda self, key, *, secrets: opening(self, "jobs" if "evil" in key else key, secrets=secrets),
        )
        forged(monkeypatch, renamed)
        assert protect(services, NOON).made
    site.lose()
    with pytest.raises(IntegrityError, match="does not hold what an appliance consists of"):
        bootstrap(source(site, key), Wishes(state=tmp_path / "up" / "state"))
    assert list((tmp_path / "up").iterdir()) == []


def test_a_place_above_is_no_place(site: Site, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = Path("/srv/../etc/lanfree.toml")
    with site.services() as services:
        forged(monkeypatch, lambda contents: contents.model_copy(update={"configuration": above}))
        assert protect(services, NOON).made
    site.lose()
    with pytest.raises(IntegrityError, match=r"names '/srv/\.\./etc/lanfree\.toml'"):
        bootstrap(source(site, key), Wishes())
    assert bootstrap(source(site, key), here(site)).configuration == site.path


def test_one_that_is_dated_in_the_future_comes_after_the_real_ones(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    later = SystemClock().now() + timedelta(days=400)
    with site.services() as services:
        (site.base / "etc" / "token").write_bytes(b"of a proxy whose clock was wrong\n")
        assert protect(services, later).made
    *_, real, ahead = own_points(site)
    site.lose()
    done = bootstrap(source(site, key), Wishes())
    assert done.point == real.id
    assert done.remarks[0].startswith(
        f"{ahead.id} is dated {later:%Y-%m-%d %H:%M} UTC, in the future, and was not taken"
    )
    assert site.etc() == protected
    taken = bootstrap(source(site, key), Wishes(point=ahead.id, force=True))
    assert "and was taken" in taken.remarks[0]


def test_an_appliance_at_work_is_not_replaced_even_with_force(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    lively = FileLocks(site.base / "state" / "executors")
    lively.join("proxy-1")
    before = site.etc()
    with pytest.raises(ConfigurationError, match="at work here: proxy-1") as refused:
        bootstrap(source(site, key), Wishes(force=True))
    assert refused.value.hint == "stop the service first"
    assert site.etc() == before
    lively.leave()
    assert bootstrap(source(site, key), Wishes(force=True)).made_at == NOON


def test_nor_is_one_whose_databases_are_open(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    with site.services() as services:
        with services.jobs.transaction() as unit:
            unit.jobs.add("second", Policy(), NOON)
        with pytest.raises(ConfigurationError, match=r"jobs\.db: another process has it open"):
            bootstrap(source(site, key), Wishes(force=True))
        with services.jobs.transaction(write=False) as unit:
            assert [job.name for job in unit.jobs.list()] == ["nightly", "second"]
    assert [path for path in site.base.rglob("*") if "before-bootstrap" in path.name] == []


CRASHES = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("CREATE TABLE late (what)")
connection.execute("INSERT INTO late VALUES ('committed')")
connection.commit()
os._exit(9)
"""


def late(database: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT what FROM late").fetchall()


def test_what_a_crash_left_in_the_log_is_in_what_is_put_aside(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    jobs = site.base / "state" / "jobs.db"
    assert subprocess.run([sys.executable, "-c", CRASHES, str(jobs)], check=False).returncode == 9
    assert jobs.with_name("jobs.db-wal").stat().st_size > 0
    done = bootstrap(source(site, key), Wishes(force=True))
    (aside,) = (path for path in done.put_aside if path.name.startswith("jobs.db."))
    assert late(aside) == [("committed",)]
    check(site)


def test_a_log_that_cannot_be_brought_into_its_database_is_kept_beside_it(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    jobs = site.base / "state" / "jobs.db"
    assert subprocess.run([sys.executable, "-c", CRASHES, str(jobs)], check=False).returncode == 9
    log = jobs.with_name("jobs.db-wal")
    whole, kept = jobs.read_bytes(), log.read_bytes()
    jobs.write_bytes(b"spoilt" * 1000)
    log.write_bytes(b"spoilt too")
    done = bootstrap(source(site, key), Wishes(force=True))
    aside = {path.name.endswith("-wal"): path for path in done.put_aside if path.name.startswith("jobs.db.")}
    assert aside[True] == aside[False].with_name(f"{aside[False].name}-wal")
    assert (aside[False].read_bytes(), aside[True].read_bytes()) == (b"spoilt" * 1000, b"spoilt too")
    aside[False].write_bytes(whole)
    aside[True].write_bytes(kept)
    assert late(aside[False]) == [("committed",)]
    check(site)


def test_a_note_of_another_bootstrap_allows_nothing(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    older, newest = own_points(site)
    state = site.base / "state"
    with site.services() as services:
        repository = services.repository.settings.id.hex()
    (state / unfinished.NAME).touch()
    site.path.unlink()
    with pytest.raises(ConfigurationError, match="there is an appliance already"):
        bootstrap(source(site, key), Wishes())
    note = unfinished.Begun(point=older.id, repository=repository, target=site.path, draft=".x.new")
    unfinished.note(state, note)
    with pytest.raises(ConfigurationError, match="there is an appliance already") as refused:
        bootstrap(source(site, key), Wishes())
    assert f"a bootstrap of {older.id}" in refused.value.hint
    unfinished.note(state, note.model_copy(update={"point": newest.id}))
    site.path.write_text("# somebody's\n")
    with pytest.raises(ConfigurationError, match="there is an appliance already"):
        bootstrap(source(site, key), Wishes())
    site.path.unlink()
    assert bootstrap(source(site, key), Wishes()).point == newest.id
    assert not (state / unfinished.NAME).exists()


def test_a_file_of_a_person_that_is_called_new_stays(site: Site, key: Path, protected: dict[str, bytes]) -> None:
    draft = site.path.with_name("lanfree.toml.new")
    draft.write_text("# what I meant to try\n")
    site.path.write_text("# spoilt\n")
    bootstrap(source(site, key), Wishes(force=True))
    assert draft.read_text() == "# what I meant to try\n"


def test_a_manifest_that_cannot_be_read_is_passed_over_and_named(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    older, newest = own_points(site)
    (manifest,) = (site.base / "repo" / "points").glob(f"*/{newest.id}")
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:-1])
    site.lose()
    done = bootstrap(source(site, key), Wishes())
    assert done.point == older.id
    assert newest.id in done.passed_over[0]


def test_of_several_appliances_whose_copies_are_here_one_has_to_be_named(
    site: Site, tmp_path: Path, protected: dict[str, bytes]
) -> None:
    other = Site(tmp_path / "other")
    other.make()
    text = other.path.read_text().replace(f"{other.base}/vault", f"{site.base}/vault")
    other.path.write_text(text.replace(f"{other.base}/etc/vault.key", f"{site.base}/etc/vault.key"))
    with other.services() as services:
        services.make_repository()
        assert protect(services, NOON).problems == ()
    vault = tmp_path / "vault.key"
    vault.write_bytes(protected["vault.key"])
    vault.chmod(0o600)
    site.lose()
    copies = Source(config.Repository(path=site.base / "vault", key_file=vault))
    with pytest.raises(ConfigurationError, match="several appliances have copies here"):
        bootstrap(copies, Wishes())
    with storage.opened(copies.section, None) as opened:
        newest = [p for p in opened.points() if p.created_at == NOON]
    names = {bootstrap(copies, Wishes(point=p.id, root=tmp_path / p.id)).configuration.name for p in newest}
    assert names == {"lanfree.toml"}


def test_a_repository_without_any_says_how_they_are_made(site: Site, key: Path) -> None:
    site.lose()
    with pytest.raises(RestorePointNotFound, match="'lanfree protect' makes them"):
        bootstrap(source(site, key), Wishes())


def killed_at(site: Site, key: Path, step: int) -> int:
    """Bootstrap in a process of its own, that is killed before it changes the n-th name that there is."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [step]

    def deadly(call: Callable[..., Any], counts: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0 and counts(*arguments):
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= counts(*arguments)
            return call(*arguments, **named)

        return counted

    try:
        Path.replace = deadly(Path.replace)  # type: ignore[method-assign]
        Path.unlink = deadly(Path.unlink, Path.exists)  # type: ignore[method-assign]
        Path.mkdir = deadly(Path.mkdir, lambda path: not path.exists())  # type: ignore[method-assign]
        placing.create_durably = deadly(placing.create_durably)
        bootstrap(source(site, key), Wishes())
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  # the child must not go on as the test
        print(repr(error), file=sys.stderr)
    os._exit(2)


def test_killed_at_any_step_the_same_command_goes_on_to_the_same_end(
    site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    seen = []
    for step in range(60):
        with suppress(FileNotFoundError):
            site.lose()
        ended = killed_at(site, key, step)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        seen.append(site.path.exists())
        done: Bootstrapped = bootstrap(source(site, key), Wishes(force=site.path.exists()))
        assert done.made_at == NOON
        assert {name: data for name, data in site.etc().items() if "before-bootstrap" not in name} == protected
        check(site)
        for aside in done.put_aside:
            aside.unlink()
    assert ended == 0
    # The configuration came last: where it was there, the rest was.
    assert seen == sorted(seen)
    assert len(seen) > 10


@pytest.fixture
def lanfree_of(command_line: Lanfree, site: Site) -> Lanfree:
    return lambda *words: command_line(site.path, *words)


def test_the_command_makes_an_appliance_and_says_no_secret(
    lanfree_of: Lanfree, site: Site, key: Path, protected: dict[str, bytes]
) -> None:
    site.lose()
    words = ("bootstrap", "--from-repository", str(site.base / "repo"))
    code, document, said = lanfree_of(*words, "--key-file", str(key))
    assert code == 0
    assert document["configuration"] == str(site.path)
    assert site.etc() == protected
    assert not any(secret.decode() in said for secret in (*SECRETS, protected["repository.key"].strip()))
    code, document, said = lanfree_of(*words, "--key-file", str(key))
    assert (code, document["error"]["code"]) == (1, "configuration")


def test_the_command_takes_other_places_and_a_typed_paper(
    lanfree_of: Lanfree, site: Site, protected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.services() as services:
        paper = keys.to_paper(services.repository.settings, services.repository.keyring)
    site.lose()
    monkeypatch.setattr(sys, "stdin", io.StringIO(paper.lower()))
    places = ("--config", str(tmp_path / "here.toml"), "--state", str(tmp_path / "there"))
    words = ("bootstrap", "--from-repository", str(site.base / "repo"), "--paper", "-", *places)
    code, document, said = lanfree_of(*words)
    assert code == 0, said
    assert document["configuration"] == str(tmp_path / "here.toml")
    assert config.load(tmp_path / "here.toml").state.directory == tmp_path / "there"
    assert not any(line.split(":")[-1].strip() in said for line in paper.splitlines()[1:])
    site.path = tmp_path / "here.toml"
    check(site)


def test_the_command_wants_exactly_one_way_in(lanfree_of: Lanfree, site: Site, key: Path) -> None:
    words = ("bootstrap", "--from-repository", str(site.base / "repo"))
    for options in ((), ("--key-file", str(key), "--unencrypted")):
        code, document, _ = lanfree_of(*words, *options)
        assert code == 1
        assert "give one of" in document["error"]["message"]
    code, document, _ = lanfree_of("bootstrap", "--from-repository", "s3:///prefix", "--key-file", str(key))
    assert "names no bucket" in document["error"]["message"]
