"""The directory store when the power goes: after every step, in every state that the disk may then be in."""

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import DeleteRefused
from proxy.model import ImageInfo, RestorePoint
from proxy.repository import PosixStore
from tests.integration.repository.points import back_up, contents
from tests.integration.repository.power_cut import Disk, Entry, Step, Sync, build, disks, recorded, whole

pytestmark = pytest.mark.tools  # no tool, but a minute

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))


@dataclass(frozen=True)
class Call:
    """Between ``begin`` and ``end`` (numbers of steps) a name got ``data``; ``None``: it was deleted."""

    begin: int
    end: int
    name: str
    data: bytes | None


def run_store(root: Path) -> tuple[list[Step], list[Call]]:
    """All that a store does to objects, twice where the second time is another path through the code."""
    calls: list[Call] = []
    with recorded(root) as recording:
        store = PosixStore(root)

        def call(action: Callable[[], object], name: str, data: bytes | None) -> None:
            begin = len(recording.steps)
            with suppress(FileExistsError):
                action()
                calls.append(Call(begin, len(recording.steps), name, data))

        def put(name: str, data: bytes, *, new: bool = True) -> None:
            call(lambda: store.put(name, data, new=new), name, data)

        put("config", b"the configuration" * 10)
        put("packs/00/a", b"first pack" * 100)
        put("packs/00/b", b"second pack" * 100)
        put("packs/00/a", b"refused" * 100)
        put("leases/one", b"lease, first", new=False)
        put("leases/one", b"lease, renewed", new=False)
        call(lambda: store.delete("packs/00/a"), "packs/00/a", None)
        put("points/m/p", b"manifest" * 50)
        call(lambda: store.delete("leases/one"), "leases/one", None)
        put("packs/00/a", b"under an old name" * 100)
    return recording.steps, calls


def allowed(calls: list[Call], cut: int) -> dict[str, set[bytes | None]]:
    """What each name may hold: the result of the last call that returned, or of the one under way."""
    found: dict[str, set[bytes | None]] = {call.name: {None} for call in calls}
    for call in calls:
        if call.end <= cut:
            found[call.name] = {call.data}
        elif call.begin < cut:
            found[call.name] |= {call.data}
    return found


@contextmanager
def nothing_synced() -> Iterator[None]:
    """While disks are only looked at nothing needs to be synced really, which would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def wrong_after(steps: list[Step], calls: list[Call], place: Path) -> list[str]:
    """What a store finds and must not, over all cuts and disks until there is something."""
    wrong: list[str] = []
    dice = random.Random(1)
    count = 0
    for cut in range(len(steps) + 1):
        may = allowed(calls, cut)
        for disk in disks(steps, cut, dice):
            root = place / "disk"
            build(disk, root)
            count += 1
            with nothing_synced():
                wrong += [f"after {cut} steps: {what}" for what in contradictions(root, may)]
            shutil.rmtree(root)
            if wrong:
                return wrong
    assert count > len(steps)
    return wrong


def contradictions(root: Path, may: dict[str, set[bytes | None]]) -> list[str]:
    wrong = []
    store = PosixStore(root)
    there = {name: store.get(name) for name in store.list("")}
    for name, values in may.items():
        if there.get(name) not in values:
            wrong.append(f"{name} is {there.get(name)!r:.40}")
    wrong += [f"{name} was never put" for name in there if name not in may]
    store.put("after/the/cut", b"goes on")
    if store.get("after/the/cut") != b"goes on":
        wrong.append("it does not go on")
    return wrong


def test_after_a_power_cut_each_object_is_whole_or_not_there_and_what_was_promised_is(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    steps, calls = run_store(root)
    assert len(calls) == 9
    assert wrong_after(steps, calls, tmp_path) == []


def test_the_recording_is_complete(tmp_path: Path) -> None:
    """All steps carried out give the very files that the store made: nothing bypasses the recording."""
    root = tmp_path / "store"
    root.mkdir()
    steps, _ = run_store(root)
    rebuilt = tmp_path / "rebuilt"
    build(whole(steps), rebuilt)

    def files(place: Path) -> dict[str, bytes]:
        return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}

    assert files(rebuilt) == files(root)


@pytest.mark.parametrize("forgotten", ["file", "directory", "parent"])
def test_a_store_that_forgot_to_sync_would_be_caught(tmp_path: Path, forgotten: str) -> None:
    """The same calls, the disk never having heard of one kind of sync: then objects are torn or missing."""
    root = tmp_path / "store"
    root.mkdir()
    steps, calls = run_store(root)

    def kept(step: Step) -> bool:
        if not isinstance(step, Sync):
            return True
        if forgotten == "file":
            return step.folder is not None
        if forgotten == "directory":
            return step.folder is None
        return step.folder not in (".", "packs", "points")

    positions = [sum(map(kept, steps[:number])) for number in range(len(steps) + 1)]
    moved = [Call(positions[c.begin], positions[c.end], c.name, c.data) for c in calls]
    wrong = wrong_after([step for step in steps if kept(step)], moved, tmp_path)
    assert wrong
    assert any(("b''" in what or "x00" in what) if forgotten == "file" else "None" in what for what in wrong)


@pytest.mark.parametrize("seen", ["by listing it", "by finding its name taken"])
def test_what_another_process_has_seen_is_not_lost(tmp_path: Path, seen: str) -> None:
    """One is killed between naming its object and syncing the directory, another sees the object, then the power goes."""
    root = tmp_path / "store"
    root.mkdir()
    PosixStore(root).put("packs/00/before", b"data")
    with recorded(root) as recording:
        killed = PosixStore(root)
        killed.put("packs/00/first", b"data")  # so that the directory itself is known to be durable
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", killed_at_a_directory(os.fsync))
            with pytest.raises(KilledError):
                killed.put("packs/00/seen", b"data")
        other = PosixStore(root)
        unseen = len(recording.steps)
        if seen == "by listing it":
            assert "packs/00/seen" in list(other.list("packs/"))
        else:
            with pytest.raises(FileExistsError):
                other.put("packs/00/seen", b"data")
    dice = random.Random(3)
    assert all(
        "packs/00/seen" in disk for disk in disks(recording.steps, len(recording.steps), dice) if "packs" in disk
    )
    assert any("packs/00/seen" not in disk for disk in disks(recording.steps, unseen, dice))


class KilledError(BaseException):
    """Nothing more happens in that process."""


def killed_at_a_directory(real: Callable[[int], None]) -> Callable[[int], None]:
    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise KilledError
        real(file)

    return fsync


def test_names_are_given_after_their_bytes_are_safe(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    steps, _ = run_store(root)
    for number, step in enumerate(steps):
        if isinstance(step, Entry) and step.inode and not step.directory and step.folder != ".tmp":
            before = [s for s in steps[:number] if isinstance(s, Sync) and s.inode == step.inode]
            assert before, step


def test_after_a_power_cut_every_sealed_point_is_whole_and_every_other_one_is_not_there(tmp_path: Path) -> None:
    """Repository made, two backups, one of them deleted; the power goes at every step."""
    root = tmp_path / "store"
    root.mkdir()
    dice = random.Random(7)
    versions = [dice.randbytes(24 * CHUNK), dice.randbytes(24 * CHUNK)]
    moments = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
    sealed: list[tuple[int, RestorePoint, bytes]] = []
    with (
        recorded(root) as recording,
        repositories.create(
            PosixStore(root), secret=SECRET, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache"
        ) as repository,
    ):
        made = len(recording.steps)
        parent: ImageInfo | None = None
        for number, (data, moment) in enumerate(zip(versions, moments, strict=True)):
            point = back_up(repository, f"run-{number}", data, moment, parent)
            parent = point.images[0]
            sealed.append((len(recording.steps), point, data))
        deleting = len(recording.steps)
        repository.delete(sealed[0][1].id)
        deleted = len(recording.steps)
    states = 0
    for cut in range(made, len(recording.steps) + 1):
        for disk in sampled(disks(recording.steps, cut, dice), dice):
            states += 1
            place = tmp_path / "disk"
            build(disk, place)
            with nothing_synced():
                points = look(place, tmp_path / "other-cache", {point.id: data for _, point, data in sealed})
            must = {point.id for end, point, _ in sealed if end <= cut}
            gone = {sealed[0][1].id}
            if cut > deleting:
                must -= gone
            assert must <= points
            assert cut < deleted or not points & gone
            shutil.rmtree(place)
    assert states > 100


def sampled(all_of_them: Iterable[Disk], dice: random.Random) -> list[Disk]:
    """Opening and verifying a repository takes a while: of each cut two at random."""
    every = list(all_of_them)
    return dice.sample(every, min(2, len(every)))


def look(place: Path, cache: Path, written: dict[str, bytes]) -> set[str]:
    """The points that are there; each is restored and compared, the repository verified and backed up to."""
    with repositories.open(PosixStore(place), secret=SECRET, cache=cache) as repository:
        assert repository.damaged_points() == []
        assert list(repositories.verify(repository)) == []
        found = contents(repository)
        assert found.items() <= written.items()
        more = back_up(repository, "after", bytes(range(256)) * 64, datetime(2026, 2, 1, tzinfo=UTC), None)
        assert more.id in {point.id for point in repository.points()}
        with suppress(DeleteRefused):
            repository.delete(more.id)
    shutil.rmtree(cache)
    return set(found)
