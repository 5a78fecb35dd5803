"""The S3 store over a real server behind a network and a service that fail in every way that they do."""

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from proxy.errors import FormatError, IntegrityError, LanfreeError, RepositoryFull, RepositoryUnavailable
from proxy.repository.stores import s3, s3_client
from proxy.repository.stores.s3 import S3Store
from proxy.units import KiB, MiB
from tests.integration.repository.s3_faults import (
    BROKEN,
    LOST_ANSWER,
    LOST_REQUEST,
    SLOW_DOWN,
    Answer,
    Fault,
    FaultyProxy,
    Request,
    faulty_proxy,
    refusal,
)
from tests.integration.repository.s3_server import SECRET, S3Server, program, s3_server

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]

# Amazon's smallest part, so that a little more is an upload in parts.
PART = 5 * MiB

MakeStore = Callable[..., S3Store]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.bucket("faults")
        yield running


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits are of hundredths of a second."""
    monkeypatch.setattr(s3_client, "FIRST_WAIT", 0.02)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def make_store(server: S3Server, proxy: FaultyProxy) -> Iterator[MakeStore]:
    """A store behind the proxy, in a folder of its own; options are those of the settings."""
    made: list[S3Store] = []
    prefix = secrets.token_hex(8)

    def make(part: int = PART, **options: object) -> S3Store:
        settings = server.settings("faults", **{"prefix": prefix, "endpoint": proxy.endpoint, **options})
        made.append(S3Store(settings, part=part))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> S3Store:
    return make_store()


def uploads(server: S3Server, store: S3Store) -> list[str]:
    listed = server.client().list_multipart_uploads(Bucket="faults").get("Uploads", [])
    return [upload["Key"] for upload in listed if upload["Key"].startswith(f"{store.settings.prefix}/")]


@pytest.mark.parametrize(
    "fault", [SLOW_DOWN, BROKEN, LOST_REQUEST, LOST_ANSWER, refusal(503, ""), refusal(429, "Slow")]
)
def test_every_operation_outlasts_some_bad_answers(store: S3Store, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.first(3, fault)
    store.put("packs/00/a", b"0123456789")
    for operation in (
        lambda: store.get("packs/00/a"),
        lambda: store.get("packs/00/a", 2, 3),
        lambda: store.size("packs/00/a"),
        lambda: store.age("packs/00/a") < 60,
        lambda: list(store.list("")),
        lambda: store.put("packs/00/a", b"0123456789", new=False),
    ):
        expected = operation()
        proxy.first(2, fault)
        assert operation() == expected
    proxy.first(2, fault)
    store.delete("packs/00/a")
    assert list(store.list("")) == []


def test_a_store_that_never_recovers_is_told_with_what_a_person_needs(
    make_store: MakeStore, proxy: FaultyProxy
) -> None:
    store = make_store(patience=1.0)
    proxy.plan = lambda _: SLOW_DOWN
    begun = time.monotonic()
    with pytest.raises(RepositoryUnavailable) as told:
        store.put("packs/00/a", b"data")
    assert time.monotonic() - begun < 5
    assert all(
        word in told.value.message for word in ("s3://faults", proxy.endpoint, "packs/00/a", "SlowDown", "attempts")
    )
    assert told.value.hint
    assert SECRET not in told.value.message + told.value.hint
    assert len(proxy.requests) > 3


def test_waiting_grows_and_a_wish_to_wait_is_heard(store: S3Store, proxy: FaultyProxy) -> None:
    store.put("packs/00/a", b"data")
    proxy.first(1, refusal(503, "SlowDown", retry_after=1))
    begun = time.monotonic()
    store.get("packs/00/a")
    assert time.monotonic() - begun >= 1


def test_a_put_whose_answer_was_lost_is_not_somebody_elses(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.first(1, LOST_ANSWER, method="PUT")
    store.put("points/m/p", b"ours")
    puts = [request for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 2
    assert store.get("points/m/p") == b"ours"
    with pytest.raises(FileExistsError):
        store.put("points/m/p", b"ours")


def test_somebody_elses_object_is_not_ours_however_alike(store: S3Store, proxy: FaultyProxy) -> None:
    store.put("points/m/p", b"the same bytes")
    proxy.first(1, LOST_REQUEST, method="PUT")
    with pytest.raises(FileExistsError):
        store.put("points/m/p", b"the same bytes")


def test_a_put_that_lost_against_one_that_vanished_again_begins_anew(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.first(1, refusal(412, "PreconditionFailed"), method="PUT")
    store.put("leases/a", b"data")
    assert store.get("leases/a") == b"data"


def test_a_conflict_of_two_puts_is_tried_again(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.first(2, refusal(409, "ConditionalRequestConflict"), method="PUT")
    store.put("packs/00/a", b"data")
    assert store.get("packs/00/a") == b"data"


def test_a_store_without_conditional_put_is_refused(make_store: MakeStore, proxy: FaultyProxy) -> None:
    store = make_store()
    store.check_conditional_put()
    assert list(store.list("")) == []
    proxy.first(9, refusal(501, "NotImplemented"), method="PUT")
    with pytest.raises(RepositoryUnavailable, match="NotImplemented") as told:
        store.check_conditional_put()
    assert "conditional put" in told.value.hint


def test_a_store_that_ignores_the_condition_is_found_out(store: S3Store, proxy: FaultyProxy) -> None:
    puts: list[Request] = []

    def plan(request: Request) -> Fault | None:
        if request.method != "PUT":
            return None
        puts.append(request)
        return Fault(change=lambda answer: Answer(200, answer.headers, b"")) if len(puts) > 1 else None

    proxy.plan = plan
    with pytest.raises(RepositoryUnavailable, match="puts over a name"):
        store.check_conditional_put()
    assert list(store.list("")) == []


@pytest.mark.parametrize("size", [PART + 1000, 3 * PART])
def test_a_large_object_goes_in_parts_and_comes_back_whole(store: S3Store, proxy: FaultyProxy, size: int) -> None:
    data = random.Random(size).randbytes(size)
    store.put("indexes/00/a", memoryview(data))
    assert sum("partNumber" in request.query for request in proxy.requests) == -(-size // PART)
    assert store.get("indexes/00/a") == data
    assert store.get("indexes/00/a", PART - 10, 20) == data[PART - 10 : PART + 10]
    with pytest.raises(FileExistsError):
        store.put("indexes/00/a", memoryview(data))
    assert store.get("indexes/00/a", 0, 100) == data[:100]


@pytest.mark.parametrize("fault", [BROKEN, SLOW_DOWN, LOST_REQUEST, LOST_ANSWER])
@pytest.mark.parametrize("step", ["uploads", "partNumber", "uploadId"])
def test_each_step_of_an_upload_in_parts_is_tried_again(
    server: S3Server, store: S3Store, proxy: FaultyProxy, fault: Fault, step: str
) -> None:
    data = random.Random(1).randbytes(PART + 1000)
    method = "PUT" if step == "partNumber" else "POST"
    proxy.first(1, fault, method=method, having=step)
    store.put("indexes/00/a", data)
    assert store.get("indexes/00/a") == data
    # A begin whose answer was lost leaves an upload that nobody knows: sweep is for that.
    assert len(uploads(server, store)) == (1 if step == "uploads" and fault is LOST_ANSWER else 0)


def test_an_upload_in_parts_that_fails_is_aborted(server: S3Server, make_store: MakeStore, proxy: FaultyProxy) -> None:
    store = make_store(patience=0.5)
    proxy.first(1000, BROKEN, having="partNumber=2")
    with pytest.raises(RepositoryUnavailable, match="part 2"):
        store.put("indexes/00/a", bytes(PART + 1))
    assert uploads(server, store) == []
    assert list(store.list("")) == []


def test_uploads_that_a_crash_left_are_aborted_a_day_later(
    server: S3Server, make_store: MakeStore, proxy: FaultyProxy
) -> None:
    store = make_store()
    key = f"{store.settings.prefix}/indexes/00/a"
    others = f"{store.settings.prefix}/somebody/elses"
    for name in (key, others):
        server.client().create_multipart_upload(Bucket="faults", Key=name)
    make_store()
    assert uploads(server, store) == [key, others]
    tomorrow = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 25 * 3600))
    proxy.plan = lambda _: Fault(change=lambda answer: answer.header("Date", tomorrow))
    make_store()
    assert uploads(server, store) == [others]


def test_opening_waits_for_no_cleaning_up(
    make_store: MakeStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "OPENING_PATIENCE", 0.5)
    proxy.plan = lambda request: SLOW_DOWN if "uploads" in request.query else None
    begun = time.monotonic()
    store = make_store(patience=60.0)
    assert time.monotonic() - begun < 20
    store.put("packs/00/a", b"data")
    assert store.get("packs/00/a") == b"data"


def test_what_a_check_that_was_killed_left_goes_a_day_later(store: S3Store, proxy: FaultyProxy) -> None:
    left, others = "check-0123456789abcdef", "check-list"
    store.put(left, b"")
    store.put(others, b"somebody else's")
    store.check_conditional_put()
    assert list(store.list("")) == [left, others]
    tomorrow = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 25 * 3600))
    proxy.plan = lambda _: Fault(change=lambda answer: answer.header("Date", tomorrow))
    store.check_conditional_put()
    assert list(store.list("")) == [others]


@pytest.mark.parametrize("length", [None, 60 * KiB])
def test_an_answer_that_breaks_off_is_fetched_again(store: S3Store, proxy: FaultyProxy, length: int | None) -> None:
    data = random.Random(2).randbytes(64 * KiB)
    store.put("packs/00/a", data)
    proxy.first(2, Fault(cut=1000), method="GET")
    assert store.get("packs/00/a", 0, length) == data[:length]


@pytest.mark.parametrize("length", [None, 60 * KiB])
def test_an_answer_that_always_breaks_off_is_an_error_and_never_short(
    make_store: MakeStore, proxy: FaultyProxy, length: int | None
) -> None:
    store = make_store(patience=0.5)
    store.put("packs/00/a", bytes(64 * KiB))
    proxy.plan = lambda _: Fault(cut=1000)
    with pytest.raises(RepositoryUnavailable):
        store.get("packs/00/a", 0, length)


def test_bytes_that_were_damaged_on_the_way_are_fetched_again(store: S3Store, proxy: FaultyProxy) -> None:
    store.put("points/m/p", b"manifest")
    damaged = Fault(change=lambda answer: Answer(answer.status, answer.headers, b"Manifest"))
    proxy.first(1, damaged, method="GET")
    assert store.get("points/m/p") == b"manifest"


def test_bytes_that_are_always_others_than_were_put_are_damage(store: S3Store, proxy: FaultyProxy) -> None:
    store.put("points/m/p", b"manifest")
    proxy.plan = lambda _: Fault(change=lambda answer: Answer(answer.status, answer.headers, b"Manifest"))
    with pytest.raises(IntegrityError, match="points/m/p"):
        store.get("points/m/p")


def test_damage_on_the_server_is_found_by_the_checksum(server: S3Server, store: S3Store) -> None:
    store.put("points/m/p", b"manifest")
    (server.data / "faults" / store.settings.prefix / "points/m/p").write_bytes(b"Manifest")
    with pytest.raises(IntegrityError, match="points/m/p"):
        store.get("points/m/p")


def test_another_range_than_was_asked_for_is_not_taken(store: S3Store, proxy: FaultyProxy) -> None:
    store.put("packs/00/a", b"0123456789")
    proxy.plan = lambda _: Fault(
        change=lambda answer: Answer(200, answer.headers, b"0123456789").header("Content-Range", None)
    )
    with pytest.raises(RepositoryUnavailable, match="range"):
        store.get("packs/00/a", 2, 3)


def test_an_object_shorter_than_asked_for_is_told(store: S3Store) -> None:
    store.put("packs/00/a", b"0123456789")
    for offset, length in ((5, 6), (10, 1), (20, 5), (11, 0)):
        with pytest.raises(FormatError):
            store.get("packs/00/a", offset, length)
    assert store.get("packs/00/a", 10) == store.get("packs/00/a", 30) == b""


def test_slow_answers_are_not_waited_for_longer_than_the_limit(make_store: MakeStore, proxy: FaultyProxy) -> None:
    store = make_store(read_timeout=0.5)
    store.put("packs/00/a", b"data")
    proxy.first(1, Fault(delay=3.0), method="GET")
    begun = time.monotonic()
    assert store.get("packs/00/a") == b"data"
    assert time.monotonic() - begun < 3


def test_a_slow_line_gets_large_objects_through(make_store: MakeStore, proxy: FaultyProxy) -> None:
    """The time limits are for standing still, not for the whole."""
    store = make_store(64 * MiB, connect_timeout=0.5, read_timeout=4.0)
    proxy.reading_pause = 0.2  # eight seconds in all
    data = bytes(40 * MiB)
    store.put("packs/00/a", data)
    assert store.size("packs/00/a") == len(data)
    assert len([request for request in proxy.requests if request.method == "PUT"]) == 1


def test_a_put_that_was_given_up_and_comes_through_late_is_ours(make_store: MakeStore, proxy: FaultyProxy) -> None:
    store = make_store(read_timeout=0.5)
    proxy.first(1, Fault(delay=1.0), method="PUT")
    store.put("points/m/p", b"ours")
    assert store.get("points/m/p") == b"ours"


def many_objects(server: S3Server, store: S3Store, count: int) -> list[str]:
    """Laid into the server's directory: putting them one by one would take a minute."""
    folder = server.data / "faults" / store.settings.prefix / "packs/00"
    folder.mkdir(parents=True)
    names = [f"{number:05}" for number in range(count)]
    for name in names:
        (folder / name).touch()
    return [f"packs/00/{name}" for name in names]


def test_a_listing_of_several_pages_is_whole_although_a_page_fails(
    server: S3Server, store: S3Store, proxy: FaultyProxy
) -> None:
    names = many_objects(server, store, 2100)
    proxy.first(2, BROKEN, having="continuation-token")
    assert list(store.list("packs/")) == names
    assert sum("list-type" in request.query for request in proxy.requests) == 5


def test_a_listing_whose_second_page_never_comes_is_an_error(
    server: S3Server, make_store: MakeStore, proxy: FaultyProxy
) -> None:
    store = make_store(patience=0.5)
    many_objects(server, store, 1100)
    proxy.first(1000, BROKEN, having="continuation-token")
    with pytest.raises(RepositoryUnavailable, match="list objects"):
        list(store.list("packs/"))


def test_a_listing_that_breaks_off_without_a_word_is_an_error(
    server: S3Server, store: S3Store, proxy: FaultyProxy
) -> None:
    many_objects(server, store, 1100)

    def cut(answer: Answer) -> Answer:
        before, _, rest = answer.body.partition(b"<NextContinuationToken>")
        return Answer(answer.status, answer.headers, before + rest.partition(b"</NextContinuationToken>")[2])

    proxy.plan = lambda _: Fault(change=cut)
    with pytest.raises(RepositoryUnavailable, match="breaks off"):
        list(store.list("packs/"))


def test_a_listing_out_of_order_is_an_error(store: S3Store, proxy: FaultyProxy) -> None:
    for name in ("packs/00/a", "packs/00/b"):
        store.put(name, b"")

    def turn(answer: Answer) -> Answer:
        body = answer.body.replace(b"00/a", b"00/c") if b"Contents" in answer.body else answer.body
        return Answer(answer.status, answer.headers, body)

    proxy.plan = lambda _: Fault(change=turn)
    with pytest.raises(RepositoryUnavailable, match="out of order"):
        list(store.list(""))


def test_an_old_listing_hides_nothing_from_those_who_know_the_name(store: S3Store, proxy: FaultyProxy) -> None:
    old: list[Answer] = []

    def stale(answer: Answer) -> Answer:
        old.append(answer)
        return old[0]

    proxy.plan = lambda request: Fault(change=stale) if "list-type" in request.query else None
    assert list(store.list("")) == []
    store.put("points/m/p", b"data")
    assert list(store.list("")) == []
    assert store.get("points/m/p") == b"data"
    with pytest.raises(FileExistsError):
        store.put("points/m/p", b"other")
    store.delete("points/m/p")
    with pytest.raises(FileNotFoundError):
        store.get("points/m/p")


@pytest.mark.parametrize("fault", [refusal(507, "InsufficientStorage"), refusal(403, "QuotaExceeded")])
@pytest.mark.parametrize("size", [10, PART + 1])
def test_a_full_store_is_told_as_such_and_nothing_is_left(
    server: S3Server, store: S3Store, proxy: FaultyProxy, fault: Fault, size: int
) -> None:
    proxy.first(1, fault, method="PUT")
    with pytest.raises(RepositoryFull, match="s3://faults"):
        store.put("packs/00/a", bytes(size))
    assert list(store.list("")) == []
    assert uploads(server, store) == []
    store.put("packs/00/a", b"data")


def test_a_bucket_that_is_gone_is_not_one_without_objects(server: S3Server, proxy: FaultyProxy) -> None:
    server.bucket("shortlived")
    store = S3Store(server.settings("shortlived"))
    server.client().delete_bucket(Bucket="shortlived")
    for look in (
        lambda: list(store.list("")),
        lambda: store.size("config"),
        lambda: store.get("config"),
        lambda: store.delete("config"),
        lambda: store.put("config", b""),
    ):
        with pytest.raises(RepositoryUnavailable, match="shortlived"):
            look()
    store.close()


def test_what_is_wrong_at_the_beginning_is_told_at_once(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnavailable, match="no such bucket"):
        S3Store(server.settings("nobodys"))
    with pytest.raises(RepositoryUnavailable, match="Connect"):
        S3Store(server.settings("faults", endpoint="http://127.0.0.1:9", patience=0.5))
    wrong = tmp_path / "credentials"
    wrong.write_text(server.credentials.read_text().replace(SECRET, "another secret"))
    wrong.chmod(0o600)
    with pytest.raises(RepositoryUnavailable) as told:
        S3Store(server.settings("faults", credentials_file=wrong))
    assert "another secret" not in f"{told.value}{told.value.hint}{told.value!r}"


def test_under_random_faults_the_store_says_what_is_so(store: S3Store, proxy: FaultyProxy) -> None:
    """Many threads, one request in four goes wrong in some way. Whatever was answered holds in the end."""
    dice = random.Random(20)
    kinds = [SLOW_DOWN, BROKEN, LOST_REQUEST, LOST_ANSWER, Fault(cut=3), Fault(delay=0.05), refusal(503, "")]
    proxy.plan = lambda _: dice.choice(kinds) if dice.random() < 0.25 else None
    made: dict[str, bytes] = {}
    wrong: list[str] = []

    def work(number: int) -> None:
        mine = random.Random(number)
        for step in range(12):
            name, data = f"packs/{mine.randrange(3)}/{mine.randrange(12)}", mine.randbytes(2000)
            try:
                store.put(name, data)
            except FileExistsError:
                pass
            except LanfreeError as error:
                wrong.append(f"{number}.{step}: {error}")
            else:
                if name in made:
                    wrong.append(f"{name} was made twice")
                made[name] = data

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(store.list("")) == sorted(made)
    assert {name: store.get(name) for name in made} == made
    assert len([r for r in proxy.requests if r.method == "PUT"]) > 96
    assert all(unquote(r.path).count(SECRET) == 0 for r in proxy.requests)
