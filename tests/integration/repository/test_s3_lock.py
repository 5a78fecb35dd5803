"""The S3 store in buckets with versions and object lock, on a real server."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from proxy.errors import ConfigurationError, ObjectRetained, RepositoryUnavailable
from proxy.repository.stores.s3 import S3Store
from proxy.repository.stores.s3_settings import LockMode
from tests.integration.repository.s3_faults import Answer, Fault, FaultyProxy, Request, faulty_proxy, refusal
from tests.integration.repository.s3_server import S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]

DAY = timedelta(days=1)

MakeStore = Callable[..., S3Store]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("plain")
        running.bucket("locked", locked=True)
        running.bucket("versions")
        running.client().put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        yield running


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def make_store(server: S3Server) -> Iterator[MakeStore]:
    made: list[S3Store] = []
    prefix = secrets.token_hex(8)

    def make(bucket: str = "locked", retain_for: timedelta | None = None, **options: object) -> S3Store:
        made.append(S3Store(server.settings(bucket, **{"prefix": prefix, **options}), retain_for=retain_for))
        return made[-1]

    yield make
    for store in made:
        store.close()


def versions(server: S3Server, store: S3Store) -> list[tuple[str, str]]:
    """What lies in the store's folder: names, with ``-`` for delete markers; and version ids; newest first by name."""
    prefix = f"{store.settings.prefix}/"
    page = server.client().list_object_versions(Bucket=store.settings.bucket, Prefix=prefix)
    there = [(v["Key"].removeprefix(prefix), v["VersionId"]) for v in page.get("Versions", [])]
    return there + [("-" + m["Key"].removeprefix(prefix), m["VersionId"]) for m in page.get("DeleteMarkers", [])]


def names(server: S3Server, store: S3Store) -> list[str]:
    return sorted(name for name, _ in versions(server, store))


def retention(server: S3Server, store: S3Store, name: str) -> dict[str, Any]:
    key = f"{store.settings.prefix}/{name}"
    answer: dict[str, Any] = server.client().get_object_retention(Bucket=store.settings.bucket, Key=key)
    found: dict[str, Any] = answer["Retention"]
    return found


def test_deleting_where_versions_are_kept_frees_the_space(server: S3Server, make_store: MakeStore) -> None:
    store = make_store("versions")
    for _ in range(3):
        store.put("leases/a", b"data", new=False)
    store.put("leases/ab", b"another that begins alike")
    assert names(server, store) == ["leases/a"] * 3 + ["leases/ab"]
    store.delete("leases/a")
    store.delete("leases/never")
    assert names(server, store) == ["leases/ab"]


def test_old_versions_can_be_left_to_the_bucket(server: S3Server, make_store: MakeStore) -> None:
    store = make_store("versions", keep_versions=True)
    store.put("leases/a", b"data")
    store.delete("leases/a")
    assert names(server, store) == ["-leases/a", "leases/a"]
    assert list(store.list("")) == []
    # Not as a new one: this server takes a delete marker for an object there, which Amazon's does not.
    store.put("leases/a", b"anew", new=False)
    assert store.get("leases/a") == b"anew"


def test_what_is_put_while_its_forerunner_is_deleted_stays(
    server: S3Server, make_store: MakeStore, proxy: FaultyProxy
) -> None:
    store = make_store("versions", endpoint=proxy.endpoint)
    other = make_store("versions")
    store.put("leases/a", b"old")

    def plan(request: Request) -> Fault | None:
        if "versions" in request.query:
            other.put("leases/a", b"new", new=False)
        return None

    proxy.plan = plan
    store.delete("leases/a")
    assert store.get("leases/a") == b"new"


@pytest.mark.parametrize("mode", list(LockMode))
def test_what_restore_points_are_made_of_is_locked_as_it_is_put(
    server: S3Server, make_store: MakeStore, mode: LockMode
) -> None:
    store = make_store(lock=mode, retain_for=14 * DAY)
    locked = ["config", "indexes/00/a", "packs/00/a", "points/m/p"]
    for name in [*locked, "leases/a", "keys/0000"]:
        store.put(name, b"data")
    for name in locked:
        found = retention(server, store, name)
        assert found["Mode"] == mode
        assert abs(found["RetainUntilDate"] - datetime.now(UTC) - 14 * DAY) < timedelta(minutes=1)
        with pytest.raises(ObjectRetained, match=name):
            store.delete(name)
    store.delete("leases/a")
    store.delete("keys/0000")
    assert names(server, store) == locked


def test_a_large_object_is_locked_from_its_first_moment(server: S3Server, make_store: MakeStore) -> None:
    store = make_store(lock=LockMode.COMPLIANCE)
    settings = store.settings
    in_parts = S3Store(settings, retain_for=DAY, part=5 * 1024**2)
    in_parts.put("indexes/00/a", bytes(5 * 1024**2 + 1))
    assert retention(server, store, "indexes/00/a")["Mode"] == "COMPLIANCE"
    in_parts.close()


def test_retention_is_reckoned_by_the_stores_clock(server: S3Server, make_store: MakeStore, proxy: FaultyProxy) -> None:
    """The proxy's clock is a year ahead of the store's: what is locked for two days must not be locked for a year."""
    answered = (datetime.now(UTC) + 2 * DAY).strftime("%a, %d %b %Y %H:%M:%S GMT")
    proxy.plan = lambda _: Fault(change=lambda answer: answer.header("Date", answered))
    store = make_store(lock=LockMode.GOVERNANCE, retain_for=3 * DAY, endpoint=proxy.endpoint)
    store.put("packs/00/a", b"data")
    until = retention(server, store, "packs/00/a")["RetainUntilDate"]
    assert abs(until - datetime.now(UTC) - 5 * DAY) < timedelta(minutes=1)


def test_governance_is_never_put_in_the_place_of_compliance(server: S3Server, make_store: MakeStore) -> None:
    strict, lax = make_store(lock=LockMode.COMPLIANCE), make_store(lock=LockMode.GOVERNANCE)
    strict.put("packs/00/a", b"data")
    strict.retain("packs/00/a", datetime.now(UTC) + DAY)
    lax.retain("packs/00/a", datetime.now(UTC) + 2 * DAY)
    found = retention(server, strict, "packs/00/a")
    assert found["Mode"] == "COMPLIANCE"
    assert found["RetainUntilDate"] > datetime.now(UTC) + 1.9 * DAY


@pytest.mark.parametrize("mode", list(LockMode))
def test_what_somebody_extends_further_in_between_is_retained_as_well(
    server: S3Server, make_store: MakeStore, proxy: FaultyProxy, mode: LockMode
) -> None:
    store, other = make_store(lock=mode, endpoint=proxy.endpoint), make_store(lock=mode)
    other.put("packs/00/a", b"data")
    now = datetime.now(UTC)

    def plan(request: Request) -> Fault | None:
        if request.method == "PUT" and "retention" in request.query:
            other.retain("packs/00/a", now + 9 * DAY)
        return None

    proxy.plan = plan
    store.retain("packs/00/a", now + 5 * DAY)
    assert retention(server, store, "packs/00/a")["RetainUntilDate"] >= now + (
        9 * DAY if mode == "COMPLIANCE" else 5 * DAY
    )


def test_a_refusal_to_retain_is_told(make_store: MakeStore, proxy: FaultyProxy) -> None:
    store = make_store(lock=LockMode.COMPLIANCE, retain_for=DAY, endpoint=proxy.endpoint)
    store.put("packs/00/a", b"data")
    proxy.first(1, refusal(403, "AccessDenied"), method="PUT", having="retention")
    with pytest.raises(RepositoryUnavailable, match=r"retain packs/00/a.*AccessDenied"):
        store.retain("packs/00/a", datetime.now(UTC) + 5 * DAY)


def test_who_steals_the_credentials_can_hide_and_not_destroy(server: S3Server, make_store: MakeStore) -> None:
    store = make_store(lock=LockMode.COMPLIANCE, retain_for=DAY)
    store.put("packs/00/a", b"the only copy")
    key = f"{store.settings.prefix}/packs/00/a"
    thief = server.client()
    (_, ours), *_ = versions(server, store)
    thief.put_object(Bucket="locked", Key=key, Body=b"rubbish")
    thief.delete_object(Bucket="locked", Key=key)
    with pytest.raises(ClientError, match="AccessDenied"):
        thief.delete_object(Bucket="locked", Key=key, VersionId=ours)
    with pytest.raises(ClientError, match="AccessDenied"):
        thief.delete_object(Bucket="locked", Key=key, VersionId=ours, BypassGovernanceRetention=True)
    sooner = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(minutes=1)}
    with pytest.raises(ClientError, match="AccessDenied"):
        thief.put_object_retention(Bucket="locked", Key=key, VersionId=ours, Retention=sooner)
    with pytest.raises(FileNotFoundError):
        store.get("packs/00/a")
    # The owner removes what is newer.
    for _, version in versions(server, store):
        if version != ours:
            thief.delete_object(Bucket="locked", Key=key, VersionId=version)
    assert store.get("packs/00/a") == b"the only copy"


def test_a_retained_version_beneath_keeps_the_name_hidden(server: S3Server, make_store: MakeStore) -> None:
    """Somebody put a newer version over a retained one. Deleting must not bring the old one to light."""
    store = make_store(lock=LockMode.COMPLIANCE, retain_for=DAY)
    store.put("packs/00/a", b"retained")
    server.client().put_object(Bucket="locked", Key=f"{store.settings.prefix}/packs/00/a", Body=b"newer")
    store.delete("packs/00/a")
    with pytest.raises(FileNotFoundError):
        store.get("packs/00/a")
    assert "packs/00/a" in names(server, store)
    assert "-packs/00/a" in names(server, store)


def test_a_bucket_without_object_lock_is_told_at_once(make_store: MakeStore) -> None:
    with pytest.raises(ConfigurationError, match="no object lock"):
        make_store("plain", lock=LockMode.COMPLIANCE)
    with pytest.raises(ConfigurationError, match="needs object lock"):
        make_store("plain", retain_for=DAY)


def test_a_legal_hold_is_respected(server: S3Server, make_store: MakeStore) -> None:
    store = make_store(lock=LockMode.GOVERNANCE)
    store.put("packs/00/a", b"data")
    hold = {"Bucket": "locked", "Key": f"{store.settings.prefix}/packs/00/a"}
    server.client().put_object_legal_hold(**hold, LegalHold={"Status": "ON"})
    with pytest.raises(ObjectRetained, match="legal hold"):
        store.delete("packs/00/a")
    server.client().put_object_legal_hold(**hold, LegalHold={"Status": "OFF"})
    store.delete("packs/00/a")
    assert names(server, store) == []


def test_an_age_needs_the_stores_date(make_store: MakeStore, proxy: FaultyProxy) -> None:
    store = make_store("plain", endpoint=proxy.endpoint)
    store.put("leases/a", b"data")
    later = (datetime.now(UTC) + DAY).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def at(answer: Answer) -> Answer:
        return answer.header("Date", later)

    proxy.plan = lambda _: Fault(change=at)
    assert abs(store.age("leases/a") - DAY.total_seconds()) < 60
