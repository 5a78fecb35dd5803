import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.access.sign_ins import Patience
from catalog.access.store import AccessStore
from catalog.access.values import Approval, ApprovalState, SignedIn, Token, User
from proxy.errors import AccessStoreFailed, ApprovalNotFound, ApprovalRefused, UserConflict, UserNotFound
from tests.unit.catalog.access.conftest import NOW

pytestmark = pytest.mark.slow

TOKEN = Token("t1", "ci", "alice", "d1", ("view",), ("db-*",), NOW)
SESSION = SignedIn("s1", "alice", NOW, NOW, NOW + timedelta(hours=12), "192.0.2.7", "a browser")
APPROVAL = Approval("a1", "delete", "delete p1", {"point": "p1"}, "alice", NOW, NOW + timedelta(days=1))


def test_a_user_is_kept_as_it_is(store: AccessStore, user: Callable[..., User]) -> None:
    made = user(password="$argon2id$x", password_at=NOW, issuer="https://id.example", subject="u1", machines=("é*",))
    with store.transaction(write=False) as unit:
        assert unit.users.get("alice") == made
        assert unit.users.of_provider("https://id.example", "u1") == made
        assert unit.users.of_provider("https://id.example", "u2") is None
        assert unit.users.any()
    assert "argon2id" not in repr(made)


def test_names_and_people_are_there_once(store: AccessStore, user: Callable[..., User]) -> None:
    user(issuer="i", subject="s")
    user("bob")
    user("carol")
    with pytest.raises(UserConflict):
        user()
    with pytest.raises(UserConflict):
        user("dave", issuer="i", subject="s")
    with store.transaction(write=False) as unit:
        assert [each.name for each in unit.users.list()] == ["alice", "bob", "carol"]
        assert [each.name for each in unit.users.list(after="alice", limit=1)] == ["bob"]


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "\ud800", "x" * 500])
def test_nobody_of_this_name(store: AccessStore, name: str) -> None:
    with store.transaction() as unit:
        assert unit.users.find(name) is None
        for ask in (unit.users.get, unit.users.remove, lambda known: unit.users.set_password(known, "p")):
            with pytest.raises(UserNotFound):
                ask(name)


def test_a_change_counts_the_revision_and_a_password_does_not(store: AccessStore, user: Callable[..., User]) -> None:
    made = user()
    with store.transaction() as unit:
        assert unit.users.put(replace(made, roles=("auditor",), disabled=True)).revision == 2
        unit.users.set_password("alice", "new", NOW)
        unit.users.set_password("alice", "newer")
        unit.users.signed_in("alice", NOW)
    with store.transaction(write=False) as unit:
        seen = unit.users.get("alice")
    assert (seen.roles, seen.disabled, seen.revision) == (("auditor",), True, 2)
    assert (seen.password, seen.password_at, seen.signed_in_at) == ("newer", NOW, NOW)


def test_with_a_user_go_tokens_and_sessions(store: AccessStore, user: Callable[..., User]) -> None:
    user()
    with store.transaction() as unit:
        unit.tokens.add(TOKEN)
        unit.sessions.begin(SESSION)
    with store.transaction() as unit:
        unit.users.remove("alice")
    with store.transaction(write=False) as unit:
        assert unit.tokens.of_digest("d1") is None
        assert unit.sessions.find("s1") is None
        assert not unit.users.any()


def test_tokens_are_found_by_digest_and_listed_by_name(store: AccessStore, user: Callable[..., User]) -> None:
    user()
    user("bob")
    others = [replace(TOKEN, id=f"t{n}", owner="bob", digest=f"d{n}", name=f"n{n // 2}-{n}") for n in range(2, 6)]
    with store.transaction() as unit:
        for token in (TOKEN, *others):
            unit.tokens.add(token)
        with pytest.raises(UserConflict):
            unit.tokens.add(replace(TOKEN, id="t9", digest="d9"))
        unit.tokens.used("t1", NOW)
    with store.transaction() as unit:
        assert unit.tokens.of_digest("d1") == replace(TOKEN, used_at=NOW) == unit.tokens.get("t1")
        assert [each.id for each in unit.tokens.list("alice")] == ["t1"]
        everybody = unit.tokens.list()
        assert [each.id for each in everybody] == ["t1", "t2", "t3", "t4", "t5"]
        assert unit.tokens.list(after=(everybody[1].name, everybody[1].id), limit=2) == everybody[2:4]
        assert unit.tokens.remove("t1") and not unit.tokens.remove("t1")


def test_sessions_end_one_by_one_and_all_together(store: AccessStore, user: Callable[..., User]) -> None:
    user()
    later = replace(SESSION, id="s3", created_at=NOW + timedelta(hours=1))
    with store.transaction() as unit:
        for session in (SESSION, replace(SESSION, id="s2"), later):
            unit.sessions.begin(session)
        assert [each.id for each in unit.sessions.of("alice")] == ["s3", "s1", "s2"]
        unit.sessions.seen("s1", NOW + timedelta(minutes=5))
        unit.sessions.seen("s1", NOW)
        assert unit.sessions.find("s1") == replace(SESSION, seen_at=NOW + timedelta(minutes=5)), "never back"
        assert unit.sessions.end("s2") and not unit.sessions.end("s2")
        assert unit.sessions.end_all("alice", besides="s1") == 1
        assert [each.id for each in unit.sessions.of("alice")] == ["s1"]


def test_sessions_whose_time_is_over_are_forgotten(store: AccessStore, user: Callable[..., User]) -> None:
    user()
    with store.transaction() as unit:
        unit.sessions.begin(SESSION)
        unit.sessions.begin(replace(SESSION, id="s2", created_at=NOW + timedelta(hours=12)))
        assert unit.sessions.find("s1") is None
        assert unit.sessions.find("s2") is not None


def test_the_newest_set_up_code_counts_and_once(store: AccessStore) -> None:
    with store.transaction() as unit:
        assert unit.setup_code.holds(NOW) is None
        unit.setup_code.put("d1", NOW + timedelta(days=1))
        unit.setup_code.put("d2", NOW + timedelta(days=1))
    with store.transaction() as unit:
        assert unit.setup_code.holds(NOW) == "d2"
        assert unit.setup_code.holds(NOW + timedelta(days=1)) is None
        unit.setup_code.use()
        assert unit.setup_code.holds(NOW) is None


LIMITS = {"name": Patience(2, 8.0), "address": Patience(100, 900.0)}


def test_waits_double_up_to_the_longest(store: AccessStore) -> None:
    waits, now = [], NOW
    with store.transaction() as unit:
        for _ in range(8):
            wait = unit.sign_ins.attempt(LIMITS, now)
            waits.append(wait.total_seconds())
            now += wait
            if wait:
                assert unit.sign_ins.attempt(LIMITS, now) == timedelta(), "then one more counts"
    assert waits == [0, 0, 1, 2, 4, 8, 8, 8]


def test_who_waits_is_not_counted(store: AccessStore) -> None:
    with store.transaction() as unit:
        for _ in range(50):
            unit.sign_ins.attempt(LIMITS, NOW)
        assert unit.sign_ins.attempt(LIMITS, NOW) == timedelta(seconds=1)
        assert unit.sign_ins.attempt({"address": LIMITS["address"]}, NOW) == timedelta()


def test_a_success_takes_the_name_back_and_of_the_address_one(store: AccessStore) -> None:
    both = {"name": Patience(1, 60.0), "address": Patience(3, 900.0)}
    with store.transaction() as unit:
        for number in range(3):
            assert unit.sign_ins.attempt({**both, f"name{number}": Patience(9, 1.0)}, NOW) == timedelta(), number
            unit.sign_ins.succeeded("name", "address")
        for _ in range(3):
            assert unit.sign_ins.attempt({"address": both["address"]}, NOW) == timedelta()
        assert unit.sign_ins.attempt({"address": both["address"]}, NOW) > timedelta()
        assert unit.sign_ins.attempt({"name": both["name"]}, NOW) == timedelta()


def test_attempts_are_forgotten_after_a_day(store: AccessStore) -> None:
    with store.transaction() as unit:
        for _ in range(3):
            unit.sign_ins.attempt(LIMITS, NOW)
        tomorrow = NOW + timedelta(hours=25)
        assert [unit.sign_ins.attempt(LIMITS, tomorrow) for _ in range(2)] == [timedelta()] * 2
        assert unit.sign_ins.attempt(LIMITS, tomorrow) == timedelta(seconds=1)


def test_attempts_at_once_count_as_many_over_all_processes(access_url: str) -> None:
    """Two stores, as two processes have them, and eight who guess at the same time: five of them are let try."""
    limits = {"name": Patience(5, 60.0)}
    tried: list[timedelta] = []
    begin = threading.Barrier(8)

    def guess(store: AccessStore) -> None:
        begin.wait()
        with store.transaction() as unit:
            tried.append(unit.sign_ins.attempt(limits, NOW))

    with AccessStore(access_url) as first, AccessStore(access_url) as second:
        threads = [threading.Thread(target=guess, args=((first, second)[n % 2],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(tried) == [timedelta()] * 5 + [timedelta(seconds=1)] * 3


def test_an_answer_is_kept_for_who_asks_again(store: AccessStore) -> None:
    until = NOW + timedelta(days=1)
    with store.transaction() as unit:
        assert unit.idempotency.begin("alice", "k", "d", NOW, until) is None
        under_way = unit.idempotency.begin("alice", "k", "d", NOW, until)
        assert under_way is not None and under_way.status is None
        assert unit.idempotency.begin("bob", "k", "d", NOW, until) is None, "everybody has keys of their own"
        unit.idempotency.finish("alice", "k", 201, {"location": "/x"}, b"\0\xff")
    with store.transaction() as unit:
        known = unit.idempotency.begin("alice", "k", "other", NOW, until)
        assert known is not None
        assert (known.digest, known.status, known.headers, known.body) == ("d", 201, {"location": "/x"}, b"\0\xff")
        unit.idempotency.forget("bob", "k")
        assert unit.idempotency.begin("bob", "k", "d", NOW, until) is None
        assert unit.idempotency.begin("alice", "k", "d", until, until) is None, "its day is over"


def test_an_approval_is_decided_once_and_ends_as_it_ends(store: AccessStore) -> None:
    with store.transaction() as unit:
        unit.approvals.add(APPROVAL)
        approved = unit.approvals.decide("a1", ApprovalState.APPROVED, "bob", NOW)
        assert approved == replace(APPROVAL, state=ApprovalState.APPROVED, decided_by="bob", decided_at=NOW)
        with pytest.raises(ApprovalRefused):
            unit.approvals.decide("a1", ApprovalState.REFUSED, "carol", NOW)
        unit.approvals.ended("a1", ApprovalState.FAILED, "it is held", NOW)
        unit.approvals.ended("a1", ApprovalState.PERFORMED, "", NOW)
        assert unit.approvals.get("a1", NOW).state is ApprovalState.FAILED, "what ended stays"
        with pytest.raises(ApprovalNotFound):
            unit.approvals.get("a2", NOW)


def test_an_approval_that_waits_for_too_long_has_expired(store: AccessStore) -> None:
    late = APPROVAL.expires_at
    with store.transaction() as unit:
        unit.approvals.add(APPROVAL)
        unit.approvals.add(
            replace(APPROVAL, id="a2", asked_at=NOW + timedelta(hours=1), expires_at=late + timedelta(hours=1))
        )
    with store.transaction(write=False) as unit:
        assert [each.id for each in unit.approvals.list(late, [ApprovalState.WAITING])] == ["a2"]
        (expired,) = unit.approvals.list(late, [ApprovalState.EXPIRED])
        assert (expired.id, expired.state) == ("a1", ApprovalState.EXPIRED)
        assert unit.approvals.list(late, [ApprovalState.PERFORMED]) == []
        assert [each.id for each in unit.approvals.list(late)] == ["a2", "a1"]
        assert [each.id for each in unit.approvals.list(late, before=(NOW + timedelta(hours=1), "a2"))] == ["a1"]


def test_two_decide_at_the_same_moment_and_one_of_them_does(access_url: str) -> None:
    decided: list[str] = []
    begin = threading.Barrier(2)
    with AccessStore(access_url) as store:
        with store.transaction() as unit:
            unit.approvals.add(APPROVAL)

        def decide(name: str) -> None:
            begin.wait()
            try:
                with store.transaction() as unit:
                    unit.approvals.decide("a1", ApprovalState.APPROVED, name, NOW)
                decided.append(name)
            except ApprovalRefused:
                pass

        threads = [threading.Thread(target=decide, args=(name,)) for name in ("bob", "carol")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        with store.transaction(write=False) as unit:
            assert decided == [unit.approvals.get("a1", NOW).decided_by]


def test_what_raises_leaves_nothing(store: AccessStore) -> None:
    with pytest.raises(RuntimeError), store.transaction() as unit:
        unit.approvals.add(APPROVAL)
        raise RuntimeError
    with store.transaction(write=False) as unit:
        assert unit.approvals.list(NOW) == []


def test_a_file_that_is_no_database_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "access.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(AccessStoreFailed, match=r"access\.db"):
        AccessStore(f"sqlite:///{tmp_path}/catalog.db")
