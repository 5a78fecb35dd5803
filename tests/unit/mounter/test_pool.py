"""Mount sessions kept open: reused, bounded, closed by age, never mixed up."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.pool import SessionPool
from mounter.ports import Volume
from mounter.session import MountSession
from proxy.errors import MountEnded, MountFailed

START = datetime(2026, 11, 22, tzinfo=UTC)


class Clock:
    """Stands still."""

    def now(self) -> datetime:
        return START


@dataclass
class Opener:
    """Counts what it opens and what was closed."""

    lifetime: timedelta = timedelta(hours=1)
    opened: list[MountSession] = field(default_factory=list)
    closed: list[MountSession] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    @contextmanager
    def __call__(self) -> Iterator[MountSession]:
        volume = MemoryVolume(Volume("v", "/dev/sda", "ext4", "", "", 0, "/"))
        volume.add_file(b"/f", b"content")
        assert self.hold.wait(60)
        session = MountSession([], lambda _s, _d: MemoryFilesystem([volume]), clock=Clock(), lifetime=self.lifetime)
        self.opened.append(session)
        with session:
            yield session
        self.closed.append(session)


class Monotonic:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def pool(monotonic: Monotonic) -> Iterator[SessionPool]:
    with SessionPool(clock=Clock(), idle=timedelta(seconds=60), most=2, monotonic=monotonic) as opened:
        yield opened


def eventually(condition: Callable[[], bool]) -> bool:
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.01) for _ in range(6000))


def test_a_session_is_opened_once_and_reused(pool: SessionPool, opener: Opener) -> None:
    for _ in range(3):
        with pool.use("p1", opener) as session:
            assert b"".join(session.read(b"/f")) == b"content"
    assert (len(opener.opened), opener.closed, pool.open_sessions) == (1, [], 1)


def test_two_users_at_once_share_one_session_that_is_opened_once(pool: SessionPool, opener: Opener) -> None:
    opener.hold.clear()
    got: list[MountSession] = []

    def look() -> None:
        with pool.use("p1", opener) as session:
            got.append(session)

    users = [threading.Thread(target=look) for _ in range(4)]
    for user in users:
        user.start()
    opener.hold.set()
    for user in users:
        user.join(60)
    assert len(opener.opened) == 1
    assert got == opener.opened * 4


def test_other_points_and_other_keys_have_sessions_of_their_own(pool: SessionPool, opener: Opener) -> None:
    with pool.use(("p1", ""), opener) as first, pool.use(("p1", "digest of keys"), opener) as second:
        assert first is not second


def test_the_longest_idle_session_makes_room(pool: SessionPool, opener: Opener, monotonic: Monotonic) -> None:
    for key in ("p1", "p2", "p1", "p3"):
        monotonic.seconds += 1
        with pool.use(key, opener):
            pass
    first, second, third = opener.opened
    assert opener.closed == [second]
    assert pool.open_sessions == 2
    with pool.use("p1", opener) as again:
        assert again is first
    assert third not in opener.closed


def test_no_session_that_is_in_use_is_closed_for_another(pool: SessionPool, opener: Opener) -> None:
    with pool.use("p1", opener), pool.use("p2", opener):
        with pytest.raises(MountFailed, match="2 sessions are in use"), pool.use("p3", opener):
            pass
        assert opener.closed == []


def test_an_idle_session_is_closed_when_its_time_has_come(
    pool: SessionPool, opener: Opener, monotonic: Monotonic
) -> None:
    with pool.use("p1", opener):
        monotonic.seconds += 100
        with pool.use("p2", opener):
            pass
    monotonic.seconds += 61
    with pool.use("p2", opener):  # wakes the one that looks
        pass
    assert eventually(lambda: opener.closed == [opener.opened[0]])


def test_a_session_that_ends_soon_is_not_given_out(pool: SessionPool) -> None:
    short = Opener(lifetime=timedelta(seconds=30))
    for _ in range(2):
        with pool.use("p1", short):
            pass
    assert len(short.opened) == 2
    assert short.closed == [short.opened[0]]


def test_a_session_that_has_ended_is_opened_anew(pool: SessionPool, opener: Opener) -> None:
    with pytest.raises(MountEnded), pool.use("p1", opener) as session:
        session.close()
        b"".join(session.read(b"/f"))
    assert opener.closed == [session]
    with pool.use("p1", opener) as again:
        assert b"".join(again.read(b"/f")) == b"content"


def test_what_cannot_be_opened_is_told_and_tried_again(pool: SessionPool, opener: Opener) -> None:
    @contextmanager
    def broken() -> Iterator[MountSession]:
        raise MountFailed("the disks", "they are gone")
        yield

    with pytest.raises(MountFailed, match="they are gone"), pool.use("p1", broken):
        pass
    assert pool.open_sessions == 0
    with pool.use("p1", opener):
        assert pool.open_sessions == 1


def test_close_ends_what_is_idle_and_what_is_in_use(opener: Opener, tmp_path: Path) -> None:
    pool = SessionPool(clock=Clock(), most=3)
    with pool.use("p1", opener):
        pass
    with pytest.raises(MountEnded), pool.use("p2", opener) as session:
        pool.close()
        b"".join(session.read(b"/f"))
    assert set(map(id, opener.closed)) == set(map(id, opener.opened))
    assert pool.open_sessions == 0
    with pytest.raises(MountEnded, match="pool"), pool.use("p1", opener):
        pass
    pool.close()


def test_a_session_is_ended_by_its_key_and_the_next_use_opens_another(pool: SessionPool, opener: Opener) -> None:
    with pool.use("a", opener):
        pass
    assert pool.is_open("a")

    pool.end("a")
    pool.end("a")
    pool.end("never there")

    assert not pool.is_open("a")
    assert opener.closed == opener.opened
    with pool.use("a", opener):
        assert len(opener.opened) == 2


def test_ending_a_session_ends_its_uses_unless_only_an_idle_one_is_meant(pool: SessionPool, opener: Opener) -> None:
    with pool.use("a", opener) as session:
        pool.end("a", used=False)
        assert session.list_directory(b"/")
        pool.end("a")
        with pytest.raises(MountEnded):
            session.list_directory(b"/")
    assert opener.closed == opener.opened
    assert pool.open_sessions == 0


def test_a_session_that_is_ended_while_it_opens_is_not_kept(pool: SessionPool, opener: Opener) -> None:
    opener.hold.clear()
    used = threading.Event()

    def use() -> None:
        with pool.use("a", opener):
            used.set()

    user = threading.Thread(target=use)
    user.start()
    assert eventually(lambda: pool.open_sessions == 1)
    pool.end("a")
    opener.hold.set()
    user.join(60)

    assert used.is_set()
    assert eventually(lambda: opener.closed == opener.opened and not pool.is_open("a"))
