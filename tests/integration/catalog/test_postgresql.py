"""The databases of several proxies: a server that asks for a password, goes away and comes back."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from appliance import databases
from appliance.checks import configured
from appliance.config import parse
from appliance.probes import Outcome
from appliance.wiring import Services
from catalog import database
from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore
from catalog.unit_of_work import Catalog
from proxy.errors import AuditFailed, CatalogFailed, ConfigurationError, DatabaseAway, JobStoreFailed
from tests.conftest import must_have
from tests.integration.catalog.postgres_server import PostgresServer, postgres_server, program

pytestmark = pytest.mark.tools

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that asks for a password."""
    if program() is None:
        must_have("postgres")
    with postgres_server(PASSWORD) as started:
        yield started


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    name = server.database()
    yield server.url(name)
    server.drop(name)


def services(tmp_path: Path, url: str, password: str = PASSWORD, mode: int = 0o600) -> Services:
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    file.chmod(mode)
    text = f'[state]\ndirectory = "{tmp_path}/state"\n[database]\nurl = "{url}"\npassword_file = "{file}"\n'
    return Services(parse(text, tmp_path / "lanfree.toml"))


def test_catalog_access_log_jobs_and_shared_records_are_all_in_the_one_database(url: str, tmp_path: Path) -> None:
    with services(tmp_path, url) as opened:
        opened.catalog.audit.record("alice@proxy", "browse", at=NOW)
        with opened.jobs.transaction() as unit:
            unit.jobs.add("nightly", Policy(), NOW)
        opened.shared.folder("kvm").put("runs/a", b"1")
    assert not list((tmp_path / "state").glob("*.db"))
    with services(tmp_path, url) as again:
        assert [entry.who for entry in again.catalog.audit.list()] == ["alice@proxy"]
        assert again.shared.get("kvm/runs/a") == b"1"
        with again.jobs.transaction(write=False) as unit:
            assert [job.name for job in unit.jobs.list()] == ["nightly"]


def test_the_password_is_in_no_url_and_no_error(url: str, tmp_path: Path) -> None:
    with services(tmp_path, url, "another one") as opened:
        for failure, touch in (
            (CatalogFailed, lambda: opened.catalog),
            (JobStoreFailed, lambda: opened.jobs),
        ):
            with pytest.raises(failure, match="authentication failed") as caught:
                touch()
            assert "another one" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
        assert PASSWORD not in opened.catalog_url + opened.workflow_url
    with services(tmp_path, url) as opened:
        engine = databases.workflow_engine(opened.settings)
        assert engine is not None
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        engine.dispose()
        assert PASSWORD not in repr(engine) + str(engine.url)


def test_a_password_that_others_can_read_is_not_used(url: str, tmp_path: Path) -> None:
    with services(tmp_path, url, mode=0o640) as opened, pytest.raises(ConfigurationError, match="may read"):
        _ = opened.jobs


def test_a_new_password_needs_no_restart(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with services(tmp_path, url) as opened:
        with opened.jobs.transaction() as unit:
            unit.jobs.add("nightly", Policy(), NOW)
        with server.connect() as connection:
            connection.execute("ALTER ROLE lanfree PASSWORD 'new'")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        (tmp_path / "password").write_text("new\n")
        with opened.jobs.transaction(write=False) as unit:
            assert len(unit.jobs.list()) == 1
        server.password = "new"
        with server.connect() as connection:
            connection.execute(f"ALTER ROLE lanfree PASSWORD '{PASSWORD}'")
        server.password = PASSWORD


def test_several_proxies_that_start_at_once_make_the_tables_once(url: str, tmp_path: Path) -> None:
    def start(_number: int) -> int:
        with Catalog(url, lambda: PASSWORD) as catalog, JobStore(url, lambda: PASSWORD) as store:
            catalog.audit.record("me", "start")
            with store.transaction() as unit:
                return len(unit.jobs.list())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(8))) == [0] * 8
    with Catalog(url, lambda: PASSWORD) as catalog:
        assert catalog.audit.head().number == 8
        assert not catalog.audit.check()


def test_nothing_half_is_written_when_the_server_goes_away_and_work_goes_on_when_it_is_back(
    server: PostgresServer, url: str
) -> None:
    stopped = threading.Event()
    with JobStore(url, lambda: PASSWORD) as store, Catalog(url, lambda: PASSWORD) as catalog:
        with store.transaction() as unit:
            unit.jobs.add("before", Policy(), NOW)
        with pytest.raises(DatabaseAway), store.transaction() as unit:
            unit.jobs.add("lost", Policy(), NOW)
            server.stop()
            unit.jobs.add("lost too", Policy(), NOW)
        with pytest.raises(DatabaseAway), store.transaction(write=False) as unit:
            unit.jobs.list()
        with pytest.raises(DatabaseAway), catalog.transaction(write=False) as known:
            known.runs.list()
        with pytest.raises(DatabaseAway):
            catalog.audit.record("me", "browse")

        @database.patient(stopped, wait=0.05)
        def add() -> list[str]:
            with store.transaction() as unit:
                unit.jobs.add("after", Policy(), NOW)
                return [job.name for job in unit.jobs.list()]

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(add)
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
            server.start()
            assert waiting.result(30) == ["after", "before"]
        assert catalog.audit.record("me", "browse").number == 1


def test_who_falls_silent_in_a_transaction_loses_it_and_the_others_go_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_ALONE_MILLISECONDS", 2000)  # longer than a busy machine is silent by itself
    with JobStore(url, lambda: PASSWORD) as silent, JobStore(url, lambda: PASSWORD) as other:
        with pytest.raises(DatabaseAway), silent.transaction() as unit:
            unit.jobs.add("silent", Policy(), NOW)
            database.patient(threading.Event(), wait=0.05)(lambda: _add(other, "other"))()
            unit.jobs.list()
        with other.transaction(write=False) as unit:
            assert [job.name for job in unit.jobs.list()] == ["other"]


def test_a_lock_that_is_not_given_back_is_not_waited_for_without_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with JobStore(url, lambda: PASSWORD) as holder, JobStore(url, lambda: PASSWORD) as other:
        with holder.shared.locked("reserve"):
            monkeypatch.setattr(database, "_ALONE_MILLISECONDS", 300)
            with pytest.raises(DatabaseAway, match="lock timeout"), other.shared.locked("reserve"):
                pass
        with other.shared.locked("reserve"):
            other.shared.put("runs/a", b"1")
        assert holder.shared.get("runs/a") == b"1"


def test_the_server_is_told_to_look_whether_we_live(url: str) -> None:
    said = f"{url}{'&' if '?' in url else '?'}options=-c%20tcp_keepalives_count%3D7%20-c%20work_mem%3D5MB"
    asked = text("SELECT name, source FROM pg_settings WHERE name LIKE 'tcp_keepalives%' ORDER BY name")
    engine = database.open_engine(said, password=lambda: PASSWORD)
    with engine.connect() as connection:
        assert [row.source for row in connection.execute(asked)] == ["client"] * 3
        assert connection.scalar(text("SHOW work_mem")) == "5MB", "what the URL says counts, too"
    engine.dispose()


def test_an_audit_log_that_is_refused_says_so(server: PostgresServer, url: str) -> None:
    with Catalog(url, lambda: PASSWORD) as catalog:
        assert catalog.audit.head().number == 0
        with server.connect(url.rpartition("/")[2].partition("?")[0]) as connection:
            connection.execute("DROP TABLE audit_entries")
        with pytest.raises(AuditFailed, match="audit_entries"):
            catalog.audit.record("me", "browse")


def _add(store: JobStore, name: str) -> None:
    with store.transaction() as unit:
        unit.jobs.add(name, Policy(), NOW)


def test_the_doctor_looks_at_the_server(server: PostgresServer, url: str, tmp_path: Path) -> None:
    with services(tmp_path, url) as opened:
        rows = {check.id: check.run() for check in configured(opened.settings)}
    found = rows["database"]
    assert "PostgreSQL" in found.detail
    assert found.outcome is Outcome.WARN, "the tests' server need not survive a power cut"
    assert "fsync" in found.detail
    assert rows[f"secret.{tmp_path}/password"].outcome is Outcome.OK
    with server.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with services(tmp_path, url.replace("//lanfree@", "//guest@"), "guest") as opened:
        found = configured(opened.settings)[1].run()
    assert found.outcome is Outcome.FAIL
    assert "may not create tables" in found.detail
    with services(tmp_path, url, "wrong") as opened:
        found = configured(opened.settings)[1].run()
    assert found.outcome is Outcome.FAIL
    assert "authentication failed" in found.detail
    with server.connect() as connection:
        connection.execute("DROP ROLE guest")
