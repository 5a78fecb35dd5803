"""What somebody without the key does to restore points shows; what honest software does is not called tampering."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import RepositoryUnavailable
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, PosixStore, Repository
from proxy.repository.checking import chain as chains
from proxy.repository.checking.audit import audit, heads
from proxy.repository.checking.chain import Chain, Head, Node, Trouble
from proxy.repository.collection.collect import collect
from proxy.repository.manifest import object_hash
from proxy.repository.records import Tombstone

pytestmark = pytest.mark.slow

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]


@pytest.fixture(params=["memory", "posix"])
def any_repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    store = MemoryStore()
    if request.param == "posix":
        (tmp_path / "root").mkdir()
        store = PosixStore(tmp_path / "root")  # type: ignore[assignment]  # both are object stores
    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "any") as made:
        yield made


def found(repository: Repository, noted: list[Head] | None = None) -> list[tuple[Trouble, str]]:
    return [(f.trouble, f.point) for f in audit(repository, noted or [])]


def take_away(repository: Repository, point: RestorePoint) -> None:
    """What somebody does who can write to the storage and has no key."""
    repository.store.delete(repository.ledger.name(point))


def points_of(repository: Repository, backup: Backup, count: int, machine: str = "m1") -> list[RestorePoint]:
    return [backup(repository, os.urandom(100), machine) for _ in range(count)]


def merged(repository: Repository) -> int:
    """Merge tombstones as collection does; how many went."""
    gone = 0
    for folder in chains.folders(repository):
        merge = chains.merge(chains.read(repository, folder))
        for name, stone in merge.replace.items():
            repository.ledger.tombstones.put(name, stone)
        for name in merge.drop:
            repository.ledger.tombstones.delete(name)
            gone += 1
    return gone


@pytest.mark.slow
def test_an_honest_repository_has_no_findings(any_repository: Repository, backup: Backup) -> None:
    a = points_of(any_repository, backup, 5, "a")
    b = points_of(any_repository, backup, 3, "b")
    noted = heads(any_repository)
    for point in (a[0], a[2], a[3], b[2]):
        any_repository.delete(point.id)
        assert found(any_repository, noted) == []
    points_of(any_repository, backup, 2, "b")
    assert found(any_repository, noted) == []
    assert found(any_repository, heads(any_repository)) == []


@pytest.mark.slow
def test_heads_are_the_newest_points_of_each_machine_deleted_or_not(any_repository: Repository, backup: Backup) -> None:
    a, b = points_of(any_repository, backup, 3, "a"), points_of(any_repository, backup, 2, "b")
    any_repository.delete(b[1].id)
    known = {head.point: head for head in heads(any_repository)}
    assert set(known) == {a[2].id, b[1].id}
    name = any_repository.ledger.name(a[2])
    assert known[a[2].id] == Head(name.split("/")[1], a[2].id, 3, object_hash(any_repository.store.get(name)))
    assert heads(any_repository, "a") == [known[a[2].id]]
    assert heads(any_repository, "unknown") == []


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_point_that_was_taken_away_from_before_others_is_found(
    any_repository: Repository, backup: Backup, which: int
) -> None:
    points = points_of(any_repository, backup, 4)
    take_away(any_repository, points[which])
    (finding,) = audit(any_repository)
    assert (finding.trouble, finding.point, finding.machine_name) == (Trouble.REMOVED, points[which].id, "name of m1")
    assert points[which + 1].id in finding.why


@pytest.mark.slow
def test_a_newest_point_that_was_taken_away_shows_beside_a_noted_head_only(
    any_repository: Repository, backup: Backup
) -> None:
    points = points_of(any_repository, backup, 4)
    noted = heads(any_repository)
    take_away(any_repository, points[3])
    take_away(any_repository, points[2])
    assert found(any_repository) == []
    assert found(any_repository, noted) == [(Trouble.TRUNCATED, points[3].id)]
    backup(any_repository, os.urandom(100))
    backup(any_repository, os.urandom(100))
    assert found(any_repository, noted) == [(Trouble.REMOVED, points[3].id)]


@pytest.mark.slow
def test_a_machine_that_vanished_wholly_shows_beside_a_noted_head(any_repository: Repository, backup: Backup) -> None:
    (point,) = points_of(any_repository, backup, 1, "a")
    points_of(any_repository, backup, 1, "b")
    noted = heads(any_repository)
    take_away(any_repository, point)
    assert found(any_repository, noted) == [(Trouble.TRUNCATED, point.id)]


@pytest.mark.slow
def test_a_live_point_between_deleted_ones_cannot_be_taken_away_unseen(
    any_repository: Repository, backup: Backup
) -> None:
    points = points_of(any_repository, backup, 7)
    for index in (0, 1, 3, 4, 5):
        any_repository.delete(points[index].id)
    assert merged(any_repository) == 3
    assert found(any_repository) == []
    take_away(any_repository, points[2])  # its follower is a tombstone
    assert found(any_repository) == [(Trouble.REMOVED, points[2].id)]
    assert merged(any_repository) == 0  # and nothing covers it up


@pytest.mark.slow
def test_merged_tombstones_still_prove_what_was_noted_before(any_repository: Repository, backup: Backup) -> None:
    noted: list[Head] = []
    points = []
    for _ in range(8):
        points.append(backup(any_repository, os.urandom(100)))
        noted += heads(any_repository)
    for index in (0, 1, 3, 4, 5):
        any_repository.delete(points[index].id)
    assert merged(any_repository) == 3
    assert found(any_repository, noted) == []
    assert len(list(any_repository.store.list("tombstones/"))) == 2
    assert merged(any_repository) == 0
    any_repository.delete(points[2].id)
    assert merged(any_repository) == 2
    assert found(any_repository, noted) == []
    backup(any_repository, os.urandom(100))
    assert found(any_repository, noted) == []


@pytest.mark.slow
def test_tombstones_that_may_still_be_taken_back_are_not_merged(any_repository: Repository, backup: Backup) -> None:
    points = points_of(any_repository, backup, 5)
    for point in points[:3]:
        any_repository.delete(point.id)
    (folder,) = chains.folders(any_repository)
    chain = chains.read(any_repository, folder)
    young = frozenset({f"points/{folder}/{points[1].id}"})
    assert list(chains.merge(chain, young).drop) == []
    assert sorted(chains.merge(chain).drop) == [f"points/{folder}/{p.id}" for p in points[:2]]


@pytest.mark.slow
def test_a_manifest_whose_bytes_changed_is_found(any_repository: Repository, backup: Backup) -> None:
    points = points_of(any_repository, backup, 3)
    name = any_repository.ledger.name(points[1])
    data = any_repository.store.get(name)
    any_repository.store.put(name, data[:100] + bytes([data[100] ^ 1]) + data[101:], new=False)
    (finding,) = audit(any_repository)
    assert (finding.trouble, finding.object) == (Trouble.ALTERED, name)
    assert "signature" in finding.why


@pytest.mark.slow
def test_a_manifest_of_another_time_or_machine_in_its_place_is_found(
    any_repository: Repository, backup: Backup
) -> None:
    points = points_of(any_repository, backup, 3)
    (stranger,) = points_of(any_repository, backup, 1, "other")
    name = any_repository.ledger.name(points[1])
    for other in (points[0], stranger):
        any_repository.store.put(name, any_repository.store.get(any_repository.ledger.name(other)), new=False)
        assert found(any_repository) == [(Trouble.ALTERED, points[1].id)]


@pytest.mark.slow
def test_a_point_that_was_sealed_anew_with_the_key_is_found_by_its_hash(
    any_repository: Repository, backup: Backup
) -> None:
    points = points_of(any_repository, backup, 3)
    noted = heads(any_repository)
    for changed in (points[1], points[2]):
        take_away(any_repository, changed)
        any_repository.ledger.add(replace(changed, machine_name="rewritten"))
    # points[1] now follows points[2], which was there when it was sealed anew.
    troubles = found(any_repository, noted)
    assert (Trouble.REWRITTEN, points[2].id) in troubles
    assert any(not trouble.notice for trouble, _ in found(any_repository))


@pytest.mark.slow
def test_a_forged_tombstone_hides_nothing(any_repository: Repository, backup: Backup) -> None:
    points = points_of(any_repository, backup, 3)
    any_repository.delete(points[0].id)
    stones = any_repository.ledger.tombstones
    real = any_repository.store.get(stones.name(any_repository.ledger.name(points[0])))
    forged = stones.name(any_repository.ledger.name(points[1]))
    any_repository.store.put(forged, real)
    take_away(any_repository, points[1])
    assert found(any_repository) == [(Trouble.ALTERED, points[1].id)]


@pytest.mark.slow
def test_a_forged_tombstone_neither_hides_a_point_nor_lets_it_be_collected(
    any_repository: Repository, backup: Backup
) -> None:
    points = points_of(any_repository, backup, 2)
    stone = any_repository.ledger.tombstones.name(any_repository.ledger.name(points[0]))
    any_repository.store.put(stone, b"rubbish")
    assert [p.id for p in any_repository.points()] == [p.id for p in points]
    for _ in range(2):
        collect(any_repository, grace=0.0, settle=0.0, young=0.0)
    assert [p.id for p in any_repository.points()] == [p.id for p in points]
    assert [damage.object for damage in repositories.verify(any_repository)] == [stone]
    assert found(any_repository) == [(Trouble.ALTERED, points[0].id)]


@pytest.mark.slow
def test_a_tombstone_that_was_taken_away_is_found(any_repository: Repository, backup: Backup) -> None:
    points = points_of(any_repository, backup, 3)
    any_repository.delete(points[0].id)
    stones = any_repository.ledger.tombstones
    any_repository.store.delete(stones.name(any_repository.ledger.name(points[0])))
    assert found(any_repository) == [(Trouble.REMOVED, points[0].id)]


@pytest.mark.slow
def test_two_points_after_one_are_told_as_a_fork_and_both_are_heads(any_repository: Repository, backup: Backup) -> None:
    points = points_of(any_repository, backup, 2)
    older = replace(points[0], id="", run="late", created_at=datetime(2025, 1, 1, tzinfo=UTC))
    late = any_repository.seal(older)  # as a copy that comes later than a newer point
    newest = backup(any_repository, os.urandom(10))
    (finding,) = audit(any_repository)
    assert finding.trouble is Trouble.FORK
    assert finding.trouble.notice
    assert all(name in finding.why for name in (late.id, newest.id, points[1].id))
    assert {head.point for head in heads(any_repository)} == {late.id, newest.id}


@pytest.mark.slow
def test_a_damaged_manifest_that_a_person_removed_is_told_and_no_more(
    any_repository: Repository, backup: Backup
) -> None:
    points = points_of(any_repository, backup, 3)
    name = any_repository.ledger.name(points[1])
    any_repository.store.put(name, b"rubbish", new=False)
    any_repository.ledger.forget(name, "the disk under it broke")
    (finding,) = audit(any_repository)
    assert (finding.trouble, finding.point) == (Trouble.FORGOTTEN, points[1].id)
    assert finding.trouble.notice
    assert "the disk under it broke" in finding.why
    # It cannot tell its predecessor any more, so that one is an end of the chain, to be noted outside.
    assert {head.point for head in heads(any_repository)} == {points[0].id, points[2].id}


def test_what_is_deleted_while_the_audit_looks_is_no_finding(tmp_path: Path, backup: Backup) -> None:
    class Busy(MemoryStore):
        """Runs something when a manifest is read."""

        meanwhile: Callable[[], None] | None = None

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            task = self.meanwhile
            if task is not None and name.startswith("points/"):
                self.meanwhile = None
                task()
            return super().get(name, offset, length)

    store = Busy()
    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "c") as repository:
        points = points_of(repository, backup, 4)
        store.meanwhile = lambda: [repository.delete(p.id) for p in points[:3]] and None
        assert found(repository) == []
        store.meanwhile = lambda: merged(repository) and None
        assert found(repository) == []
        store.meanwhile = lambda: backup(repository, b"x") and None
        assert found(repository) == []


def test_a_repository_out_of_reach_does_not_look_tampered_with(any_repository: Repository, backup: Backup) -> None:
    points_of(any_repository, backup, 1)
    noted = heads(any_repository)
    any_repository.store.delete("config")
    with pytest.raises(RepositoryUnavailable):
        list(audit(any_repository, noted))


class Vanishing(MemoryStore):
    """Is there until ``gone`` says otherwise, as a mount is: then every name is unknown and every list empty."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: Callable[[str], bool] | None = None

    def _fade(self, name: str) -> None:
        if self.gone is not None and self.gone(name):
            self.objects.clear()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._fade(name)
        return super().get(name, offset, length)

    def list(self, prefix: str) -> Iterator[str]:
        self._fade(prefix)
        return super().list(prefix)


@pytest.mark.parametrize("when", [1, 3, 4, 7])
def test_a_repository_that_vanishes_during_an_audit_does_not_look_tampered_with(
    tmp_path: Path, backup: Backup, when: int
) -> None:
    store, seen = Vanishing(), 0

    def then(name: str) -> bool:
        nonlocal seen
        seen += name.startswith("points/")
        return seen == when

    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "c") as repository:
        points_of(repository, backup, 2, "a")
        points_of(repository, backup, 2, "b")
        noted = heads(repository)
        store.gone = then
        with pytest.raises(RepositoryUnavailable, match="config object is gone"):
            list(audit(repository, noted))
        assert seen >= when


def test_a_repository_that_vanished_before_anything_was_read_is_not_called_whole(
    tmp_path: Path, backup: Backup
) -> None:
    store = Vanishing()
    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "c") as repository:
        points_of(repository, backup, 2)
        store.gone = lambda name: name.count("/") > 1
        with pytest.raises(RepositoryUnavailable, match="config object is gone"):
            list(audit(repository))


def test_the_ends_of_chains_that_vanish_are_no_ends(tmp_path: Path, backup: Backup) -> None:
    store = Vanishing()
    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "c") as repository:
        points_of(repository, backup, 2)
        store.gone = lambda name: name.count("/") > 1  # the list of one machine's points, and not that of all
        with pytest.raises(RepositoryUnavailable, match="config object is gone"):
            heads(repository)


def test_folders_are_listed_once(tmp_path: Path, backup: Backup) -> None:
    store = Vanishing()
    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "c") as repository:
        points_of(repository, backup, 1)
        listed: list[str] = []
        store.gone = lambda name: bool(listed.append(name))  # type: ignore[func-returns-value]  # it notes, and goes on
        assert len(chains.folders(repository)) == 1
        assert listed.count("points/") == 1


# ------------------------------------------------------------------------------ chains as values


def chain_of(*nodes: Node) -> Chain:
    return Chain("f" * 16, {node.point: node for node in nodes})


def live(number: int, previous: str | None = "", hashed: str | None = "") -> Node:
    before = f"p{number - 1}" if number > 1 else None
    before = before if previous == "" else previous
    known = f"h-{before}" if before else None
    return Node(f"p{number}", number, f"h-p{number}", before, known if hashed == "" else hashed)


def buried(number: int, previous: str | None = "") -> Node:
    before = live(number, previous).previous
    when = datetime(2026, 1, 1, tzinfo=UTC)
    stone = Tombstone(f"p{number}", f"h-p{number}", number, before, when, "")
    return Node(f"p{number}", number, f"h-p{number}", before, stone=stone)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([live(1), live(2), live(3)], []),
        ([buried(1), live(2), buried(3)], []),
        ([live(1), buried(4, "p1"), live(5)], []),  # 2 and 3 were merged into 4
        ([buried(4, None), live(5)], []),  # 1, 2 and 3 were
        ([buried(4, "p3"), live(5)], [(Trouble.REMOVED, "p3")]),
        ([live(1), live(3)], [(Trouble.REMOVED, "p2")]),
        ([live(1), live(2, hashed="other")], [(Trouble.REWRITTEN, "p1")]),
        ([live(1), live(3, "p1")], [(Trouble.CONTRADICTION, "p3")]),
        ([live(2, None)], [(Trouble.CONTRADICTION, "p2")]),
        ([live(1), live(2), replace(live(1), point="q", hash="h-q")], [(Trouble.FORK, "q")]),
        ([live(1), replace(buried(2), left="other")], [(Trouble.CONTRADICTION, "p2")]),
    ],
)
def test_a_chain_is_judged_by_numbers_names_and_hashes(nodes: list[Node], expected: list[tuple[Trouble, str]]) -> None:
    assert [(f.trouble, f.point) for f in chains.findings(chain_of(*nodes))] == expected


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        (Head("", "p1", 1, "h-p1"), None),
        (Head("", "p1", 1, "h-other"), Trouble.REWRITTEN),
        (Head("", "p3", 3, "h-p3"), None),  # merged into 4
        (Head("", "p4", 4, "h-p4"), None),
        (Head("", "x4", 4, "h-x4"), Trouble.REMOVED),
        (Head("", "p6", 6, "h-p6"), Trouble.TRUNCATED),
    ],
)
def test_a_noted_head_must_be_there_or_covered(noted: Head, expected: Trouble | None) -> None:
    finding = chains.compare(chain_of(live(1), buried(4, "p1"), live(5)), noted)
    assert (finding.trouble if finding else None) == expected


def test_merging_never_loses_a_link_whatever_was_deleted() -> None:
    for pattern in range(1 << 8):
        nodes = [buried(n) if pattern >> (n - 1) & 1 else live(n) for n in range(1, 9)]
        chain = chain_of(*nodes)
        merge = chains.merge(chain)
        dropped = {name.rpartition("/")[2] for name in merge.drop}
        stones = {name.rpartition("/")[2]: stone for name, stone in merge.replace.items()}
        left = [
            replace(node, previous=stones[node.point].previous, stone=stones[node.point])
            if node.point in stones
            else node
            for node in nodes
            if node.point not in dropped
        ]
        after = chain_of(*left)
        assert chains.findings(after) == []
        assert all(chains.compare(after, Head("", n.point, n.number, n.hash)) is None for n in nodes)
        alive = sum(node.stone is None for node in nodes)
        assert len(left) <= 2 * alive + 1
        assert chains.merge(after).drop == []
        for gone in (node for node in left if node.stone is None and node.number < 8):
            rest = chain_of(*(node for node in left if node is not gone))
            assert [f.trouble for f in chains.findings(rest)] == [Trouble.REMOVED]


def merged_wholly(nodes: list[Node]) -> list[Node]:
    """Merge as often as there is something to merge; each time nothing may look tampered with."""
    while True:
        chain = chain_of(*nodes)
        assert [f for f in chains.findings(chain) if not f.trouble.notice] == []
        merge = chains.merge(chain)
        if not merge.replace and not merge.drop:
            return nodes
        stones = {name.rpartition("/")[2]: stone for name, stone in merge.replace.items()}
        dropped = {name.rpartition("/")[2] for name in merge.drop}
        nodes = [
            replace(n, previous=stones[n.point].previous, stone=stones[n.point]) if n.point in stones else n
            for n in nodes
            if n.point not in dropped
        ]


@pytest.mark.parametrize("seed", range(60))
def test_forked_chains_are_merged_without_losing_what_was_noted(seed: int) -> None:
    dice = random.Random(seed)
    nodes: list[Node] = []
    for count in range(14):
        before = dice.choice(nodes[-3:]) if nodes and dice.random() < 0.9 else None
        number, previous = (before.number + 1, before.point) if before else (1, None)
        point, hashed = f"p{count:02}", before.hash if before else None
        stone = None
        if dice.random() < 0.6:
            stone = Tombstone(point, f"h{count}", number, previous, datetime(2026, 1, 1, tzinfo=UTC), "")
        nodes.append(Node(point, number, f"h{count}", previous, None if stone else hashed, stone=stone))
    left = merged_wholly(nodes)
    after = chain_of(*left)
    assert [n.point for n in left if n.stone is None] == [n.point for n in nodes if n.stone is None]
    assert all(chains.compare(after, Head("", n.point, n.number, n.hash)) is None for n in nodes)
    followed = [n for n in left if n.stone is None and any(o.previous == n.point for o in left)]
    for gone in followed:
        rest = chain_of(*(n for n in left if n is not gone))
        assert (Trouble.REMOVED, gone.point) in [(f.trouble, f.point) for f in chains.findings(rest)]
