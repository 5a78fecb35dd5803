"""An appliance whose databases are in PostgreSQL: grown to it, protected from it, made anew with it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from appliance import config, storage
from appliance.protection.backup import place_of, protect
from appliance.protection.bootstrap import Source, Wishes, bootstrap
from catalog import portable
from catalog.jobs.policy import Policy
from catalog.jobs.values import ProxyFacts
from mounter.keys import Key
from proxy.errors import ConfigurationError, MachineBusy
from tests.conftest import must_have
from tests.integration.catalog.postgres_server import PostgresServer, postgres_server, program
from tests.unit.appliance.protection.conftest import NOON, VOLUME, Site

pytestmark = pytest.mark.tools

PASSWORD = "swordfish-of-the-database"
INSTALLATION = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if program() is None:
        must_have("postgres")
    with postgres_server(PASSWORD) as running:
        yield running


def lanfree(site: Site, *words: str) -> tuple[int, Any, str]:
    """Exit code, JSON document, all that was said; a process of its own, which shows its words to everybody."""
    assert PASSWORD not in words
    command = [sys.executable, "-m", "appliance.cli", "--config", str(site.path), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert PASSWORD not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stdout + done.stderr


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Of an empty database."""
    return server.url(server.database())


def furnish(site: Site) -> None:
    """What the new appliance shall have again; wherever the databases are."""
    with site.services() as services:
        point = site.machine_point(services.repository)
        with services.catalog.transaction() as unit:
            unit.restore_points.add(point)
        with services.jobs.transaction() as unit_of_jobs:
            unit_of_jobs.jobs.add("nightly", Policy(description="all of it"), NOON)
        services.unlock.add("m1", Key("/dev/sda3", VOLUME), NOON)
        services.shared.put("vsphere/installation", INSTALLATION)
        services.catalog.audit.record("root@proxy", "browse", "m1", point.id)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Repositories and configuration; nothing in any database."""
    made = Site(tmp_path / "site")
    made.make()
    with made.services() as services:
        services.make_repository()
        storage.made(services.settings.copy_to[0], tmp_path / "cache", services.clock)
    return made


@pytest.fixture
def key(site: Site, tmp_path: Path) -> Path:
    place = tmp_path / "key"
    place.write_bytes((site.base / "etc" / "repository.key").read_bytes())
    place.chmod(0o600)
    return place


def password_of(site: Site) -> Path:
    """The file with the server's password."""
    place = site.base / "etc" / "db.password"
    if not place.exists():
        place.write_text(f"{PASSWORD}\n")
        place.chmod(0o600)
    return place


def in_server(site: Site, url: str) -> None:
    """The configuration names the server from now on."""
    section = f'[database]\nurl = "{url}"\npassword_file = "{password_of(site)}"\n'
    site.path.write_text(f"{site.path.read_text()}\n{section}")


def check(site: Site, *, actions: tuple[str, ...]) -> None:
    with site.services() as services:
        assert services.catalog_url.startswith("postgresql")
        with services.jobs.transaction(write=False) as unit:
            assert [job.name for job in unit.jobs.list()] == ["nightly"]
        with services.catalog.transaction(write=False) as unit_of_catalog:
            assert [listed.point.machine for listed in unit_of_catalog.restore_points.list()] == ["m1"]
        assert tuple(entry.action for entry in services.catalog.audit.list()) == actions
        assert services.catalog.audit.check() == []
        assert [k.secret for k in services.unlock.keys("m1")] == [VOLUME]
        assert services.shared.get("vsphere/installation") == INSTALLATION


def repository(site: Site, key: Path) -> Source:
    return Source(config.Repository(path=site.base / "repo", key_file=key))


def test_one_proxy_grows_to_several_with_all_that_it_has(site: Site, url: str) -> None:
    furnish(site)
    code, document, said = lanfree(site, "database", "copy", "--to", url, "--password-file", str(password_of(site)))
    assert code == 0, said
    assert document["rows"]["jobs"] == document["rows"]["restore_points"] == 1
    assert document["kept"] == 2
    in_server(site, url)
    check(site, actions=("browse",))
    with site.services() as services, services.jobs.transaction() as unit:
        unit.jobs.add("weekly", Policy(), NOON)
    # What somebody uses by now is not written to.
    text = site.path.read_text().partition("\n[database]")[0]
    site.path.write_text(text)
    code, document, _ = lanfree(site, "database", "copy", "--to", url, "--password-file", str(password_of(site)))
    assert (code, document["error"]["code"]) == (1, "configuration")
    assert "has rows" in document["error"]["message"]


def test_nothing_is_copied_while_a_proxy_works(site: Site, url: str) -> None:
    from catalog.jobs.values import ProxyFacts  # noqa: PLC0415

    furnish(site)
    with site.services() as services, services.jobs.transaction() as unit:
        unit.proxies.beat(ProxyFacts("p1", "proxy1", NOON, NOON))
    code, document, _ = lanfree(site, "database", "copy", "--to", url, "--password-file", str(password_of(site)))
    assert code == 1
    assert "at work: proxy1" in document["error"]["message"]
    assert lanfree(site, "database", "copy", "--to", url, "--busy", "--password-file", str(password_of(site)))[0] == 0


def test_an_address_with_a_password_is_refused_and_not_repeated(site: Site) -> None:
    address = "postgresql+psycopg://lanfree:hunter2@db/lanfree"
    code, _, said = lanfree(site, "database", "copy", "--to", address)
    assert code == 1
    assert "hunter2" not in said


def test_protected_from_a_server_and_made_anew_with_an_empty_one(server: PostgresServer, site: Site, key: Path) -> None:
    name = server.database()
    in_server(site, server.url(name))
    furnish(site)
    with site.services() as services:
        report = protect(services, NOON)
        assert report.problems == ()
        assert not protect(services, NOON + timedelta(hours=1)).made
    before = site.etc()
    site.lose()
    server.drop(name)
    with server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    done = bootstrap(repository(site, key), Wishes())
    assert "was empty and has" in done.remarks[0]
    assert site.etc() == before
    check(site, actions=("bootstrap", "browse"))


def test_two_proxies_do_not_protect_at_once(site: Site, url: str) -> None:
    in_server(site, url)
    with site.services() as services:
        with portable.alone(place_of(services), "protect") as other:
            assert other
            with pytest.raises(MachineBusy, match="another proxy"):
                protect(services, NOON)
        assert protect(services, NOON).made


def test_a_server_that_other_proxies_use_is_left_as_it_is(site: Site, key: Path, url: str) -> None:
    in_server(site, url)
    furnish(site)
    with site.services() as services:
        protect(services, NOON)
        with services.jobs.transaction() as unit:
            unit.jobs.rename("nightly", "every night", NOON)
    site.lose()
    done = bootstrap(repository(site, key), Wishes())
    assert "has rows and was left as it is" in done.remarks[0]
    with site.services() as services, services.jobs.transaction(write=False) as unit:
        assert [job.name for job in unit.jobs.list()] == ["every night"]


def test_where_the_server_is_away_the_databases_wait_and_are_brought_later(
    server: PostgresServer, site: Site, key: Path
) -> None:
    name = server.database()
    in_server(site, server.url(name))
    furnish(site)
    with site.services() as services:
        protect(services, NOON)
    site.lose()
    server.drop(name)
    done = bootstrap(repository(site, key), Wishes())
    waiting = site.base / "state" / "restored-databases"
    assert f"the databases wait in {waiting}" in done.remarks[0]
    assert f"--from {waiting}" in done.remarks[0]
    with server.connect() as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    words = ("--from", str(waiting), "--to", server.url(name), "--password-file", str(password_of(site)))
    code, _, said = lanfree(site, "database", "copy", *words)
    assert code == 0, said
    check(site, actions=("bootstrap", "browse"))


def test_a_proxy_of_this_machine_that_lives_is_not_replaced_and_those_of_others_may_go_on(
    site: Site, key: Path, url: str
) -> None:
    in_server(site, url)
    furnish(site)
    with site.services() as services:
        protect(services, NOON)
        with services.jobs.transaction() as unit:
            unit.proxies.beat(ProxyFacts("p1", gethostname(), NOON, NOON))
    before = site.etc()
    with pytest.raises(ConfigurationError, match="at work here: p1"):
        bootstrap(repository(site, key), Wishes(force=True))
    assert site.etc() == before
    with site.services() as services, services.jobs.transaction() as unit:
        unit.proxies.gone("p1")
        unit.proxies.beat(ProxyFacts("p2", "elsewhere", NOON, NOON))
    assert bootstrap(repository(site, key), Wishes(force=True)).made_at == NOON
