"""One machine's chain of restore points, as values: what is wrong with it, where it ends, how its tombstones are merged.

::

    number     1        2        3        4        5        6
             point <- stone <- stone <- point <- stone <- point      each names its predecessor; points name its hash too
    merged   point <--------- stone' <- point <- stone <- point      stone' is signed again, and names point 1

A point that was deleted leaves a tombstone, so a predecessor that is neither there nor buried was taken away by somebody who
has no key. Tombstones are therefore never just dropped: those in a run are **merged** into the last one, which then says,
signed, that everything between its predecessor and itself was deleted on purpose. There are never more of them than points
and machines, for long.

Two points may name one predecessor (a **fork**): two proxies sealed at once, or an older point was copied here later.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from proxy.errors import FormatError, IntegrityError, RepositoryUnavailable
from proxy.model import RestorePointId
from proxy.repository import manifest, settings
from proxy.repository.ledger import place_of
from proxy.repository.parallel import each
from proxy.repository.records import Tombstone
from proxy.repository.repository import Repository


class Trouble(StrEnum):
    """What an audit finds. ``FORK`` and ``FORGOTTEN`` are only told; nobody without the key is needed for them."""

    REMOVED = "removed"
    ALTERED = "altered"
    CONTRADICTION = "contradiction"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    FORK = "fork"
    FORGOTTEN = "forgotten"

    @property
    def notice(self) -> bool:
        """Whether this happens to honest repositories too."""
        return self in (Trouble.FORK, Trouble.FORGOTTEN)


@dataclass(frozen=True, slots=True)
class Finding:
    """``chain``: the machine's folder; ``machine`` and ``machine_name`` may be unknown (empty). ``object``: its name."""

    trouble: Trouble
    chain: str
    machine: str
    machine_name: str
    point: RestorePointId
    object: str
    why: str


@dataclass(frozen=True, slots=True)
class Head:
    """An end of a chain: what an outside witness notes. ``chain``: the machine's folder, 16 hexadecimal digits, which tell
    nobody without the key which machine it is; ``hash``: of the manifest object (BLAKE3, hexadecimal)."""

    chain: str
    point: RestorePointId
    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class Node:
    """A restore point, or its tombstone (``stone``). ``previous_hash``: tombstones do not keep it.

    ``left``: hash of a manifest that is there beside its tombstone, because the deletion is not finished.
    """

    point: RestorePointId
    number: int
    hash: str
    previous: RestorePointId | None
    previous_hash: str | None = None
    stone: Tombstone | None = None
    left: str | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """``unreadable``: object name -> why, of manifests and tombstones that carry no good signature or are damaged."""

    folder: str
    nodes: Mapping[RestorePointId, Node]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    machine_name: str = ""

    def followers(self) -> dict[RestorePointId | None, list[Node]]:
        """Predecessor -> who names it."""
        named: dict[RestorePointId | None, list[Node]] = {}
        for node in sorted(self.nodes.values(), key=lambda n: (n.number, n.point)):
            named.setdefault(node.previous, []).append(node)
        return named

    def heads(self) -> list[Head]:
        """Ends of the chain, the longest last: one, unless it was forked."""
        named = self.followers()
        ends = [node for node in self.nodes.values() if node.point not in named]
        return [Head(self.folder, n.point, n.number, n.hash) for n in sorted(ends, key=lambda n: (n.number, n.point))]

    def is_unreadable(self, point: RestorePointId) -> bool:
        """Whether an object of this restore point is there and cannot be read."""
        return any(name.endswith(f"/{point}") for name in self.unreadable)


def folders(repository: Repository) -> list[str]:
    """Folders of all machines that have, or had, restore points. Raises ``RepositoryUnavailable``."""
    names = (*repository.store.list(manifest.PREFIX), *repository.ledger.tombstones.names())
    must_be_there(repository)
    return sorted({name.split("/")[1] for name in names})


def must_be_there(repository: Repository) -> None:
    """A mount that vanished shows empty lists: asked after those, this tells them from an empty repository, and what was seen
    of it from a chain that was cut off. One request. Raises ``RepositoryUnavailable``."""
    try:
        repository.store.size(settings.NAME)
    except FileNotFoundError:
        raise RepositoryUnavailable(place_of(repository.store), "its config object is gone") from None


def read(repository: Repository, folder: str) -> Chain:
    """One machine's chain as it is now. Reads every manifest and tombstone of it."""
    prefix = f"{manifest.PREFIX}{folder}/"
    nodes: dict[RestorePointId, Node] = {}
    unreadable: dict[str, str] = {}
    machine = ("", "")
    listed = list(repository.store.list(prefix))
    # Tombstones are listed after the manifests: of a point that is deleted meanwhile one of the two is seen.
    buried = sorted(repository.ledger.tombstones.names(prefix))
    for name, seen in zip(listed, each(lambda name: _point(repository, name), listed), strict=True):
        if isinstance(seen, str):
            unreadable[name] = seen
        elif seen is not None:
            node, machine = seen[0], seen[1:]
            nodes[node.point] = node
    for name, stone in zip(buried, each(lambda name: _stone(repository, name), buried), strict=True):
        if isinstance(stone, str):
            unreadable[repository.ledger.tombstones.name(name)] = stone
        elif stone is not None:
            unreadable.pop(name, None)
            beside = nodes.get(stone.point)
            nodes[stone.point] = stone if beside is None else replace(stone, left=beside.hash)
    return Chain(folder, nodes, unreadable, *machine)


def _point(repository: Repository, name: str) -> tuple[Node, str, str] | str | None:
    """The node, the machine's id and name; what is wrong with the manifest; ``None`` if it was deleted meanwhile."""
    try:
        data = repository.store.get(name)
        found = manifest.decode(name, data, repository.sealer)
        if repository.ledger.name(found.point) != name:
            raise FormatError(name, f"holds restore point {found.point.id} of another name")
    except FileNotFoundError:
        return None
    except (FormatError, IntegrityError) as error:
        return error.message.removeprefix(f"{name}: ")
    link, point = found.link, found.point
    node = Node(point.id, link.number, manifest.object_hash(data), link.previous, link.previous_hash)
    return node, point.machine, point.machine_name


def _stone(repository: Repository, name: str) -> Node | str | None:
    """The node; what is wrong with the tombstone of this manifest; ``None`` if it was taken back meanwhile."""
    stones = repository.ledger.tombstones
    try:
        stone = stones.get(name)
    except (FormatError, IntegrityError) as error:
        return error.message.removeprefix(f"{stones.name(name)}: ")
    if stone is None:
        return None
    return Node(name.rpartition("/")[2], stone.number, stone.hash, stone.previous, stone=stone)


def findings(chain: Chain) -> list[Finding]:
    """Everything that is wrong with a chain, taken by itself."""
    found = [
        _finding(chain, Trouble.ALTERED, name.rpartition("/")[2], name, why) for name, why in chain.unreadable.items()
    ]
    for node in sorted(chain.nodes.values(), key=lambda n: (n.number, n.point)):
        found.extend(_of_node(chain, node))
    for previous, named in chain.followers().items():
        followers = [node for node in named if not _forgotten(node)]
        if len(followers) > 1:
            names = ", ".join(node.point for node in followers)
            what = f"all name {previous}" if previous else "all begin the chain"
            found.append(_finding(chain, Trouble.FORK, followers[-1].point, "", f"{names} {what} as predecessor"))
    return found


def compare(chain: Chain, noted: Head) -> Finding | None:
    """Whether an end that was noted outside is still a part of the chain: as a point, as a tombstone of that hash, or
    between a merged tombstone and its predecessor, by their numbers."""
    node = chain.nodes.get(noted.point)
    name = f"{manifest.PREFIX}{chain.folder}/{noted.point}"
    if node is not None:
        if node.hash == noted.hash or _forgotten(node):
            return None
        return _finding(chain, Trouble.REWRITTEN, noted.point, name, "is not the one that was noted: another hash")
    if chain.is_unreadable(noted.point) or any(_covers(chain, other, noted) for other in chain.nodes.values()):
        return None  # the chain's own findings tell of an unreadable one
    if all(other.number < noted.number for other in chain.nodes.values()):
        return _finding(chain, Trouble.TRUNCATED, noted.point, name, f"number {noted.number} was noted, and is gone")
    return _finding(chain, Trouble.REMOVED, noted.point, name, "was noted, and is neither there nor buried")


@dataclass(frozen=True, slots=True)
class Merge:
    """``replace``: manifest name -> its tombstone, to be put again, first; ``drop``: manifest names whose tombstones may be
    deleted when that is done."""

    replace: Mapping[str, Tombstone]
    drop: Sequence[str]


def merge(chain: Chain, young: frozenset[str] = frozenset()) -> Merge:
    """How the chain's tombstones become fewer. ``young``: names of manifests whose tombstones may still be taken back.

    What is not known to have been deleted on purpose is never covered up: a run that begins at a missing predecessor stays.
    """
    named = chain.followers()
    prefix = f"{manifest.PREFIX}{chain.folder}/"

    def settled(node: Node) -> bool:
        return (
            node.stone is not None and node.left is None and not _forgotten(node) and prefix + node.point not in young
        )

    def inner(node: Node) -> bool:
        followers = named.get(node.point, [])
        return settled(node) and len(followers) == 1 and settled(followers[0])

    changed: dict[str, Tombstone] = {}
    drop: list[str] = []
    for node in chain.nodes.values():
        if node.stone is None or not settled(node) or inner(node):
            continue
        before = list(_run(chain, node, inner))
        first = before[-1].previous if before else node.previous
        if before and (first is None or first in chain.nodes):
            changed[prefix + node.point] = replace(node.stone, previous=first)
            drop.extend(prefix + each.point for each in before)
    drop.extend(prefix + node.point for node in _left(chain, named) if settled(node))
    return Merge(changed, drop)


def _left(chain: Chain, named: Mapping[RestorePointId | None, Sequence[Node]]) -> Iterator[Node]:
    """Tombstones that nobody names while a merged one speaks for all that they speak for: of a merge that was killed in the
    middle, or ends of forks."""
    newest = max(chain.nodes, default="")
    for node in chain.nodes.values():
        first = _before(chain, node)
        if node.stone is None or node.point in named or node.point == newest or first is None:
            continue
        for other in chain.nodes.values():
            start = _before(chain, other)
            if other.stone is not None and start is not None and start <= first and node.number < other.number:
                yield node
                break


def _run(chain: Chain, node: Node, inner: Callable[[Node], bool]) -> Iterator[Node]:
    """Tombstones before this one that would be merged into it, newest first."""
    seen = {node.point}
    while node.previous is not None and node.previous not in seen:
        seen.add(node.previous)
        before = chain.nodes.get(node.previous)
        if before is None or not inner(before):
            return
        yield before
        node = before


def _of_node(chain: Chain, node: Node) -> Iterator[Finding]:
    name = f"{manifest.PREFIX}{chain.folder}/{node.point}"
    if _forgotten(node):
        why = f"could not be read any more when it was removed: {node.stone.why if node.stone else ''}"
        yield _finding(chain, Trouble.FORGOTTEN, node.point, name, why)
        return
    if node.left is not None and node.left != node.hash:
        yield _finding(chain, Trouble.CONTRADICTION, node.point, name, "is not the one that its tombstone means")
    if node.previous is None:
        if node.stone is None and node.number != 1:
            yield _finding(chain, Trouble.CONTRADICTION, node.point, name, f"number {node.number} has no predecessor")
        return
    before = chain.nodes.get(node.previous)
    if before is None:
        if not chain.is_unreadable(node.previous):
            missing = f"{manifest.PREFIX}{chain.folder}/{node.previous}"
            why = f"is neither there nor buried, though {node.point} names it as its predecessor"
            yield _finding(chain, Trouble.REMOVED, node.previous, missing, why)
        return
    if _forgotten(before):
        return
    if node.previous_hash is not None and node.previous_hash != before.hash:
        there = f"{manifest.PREFIX}{chain.folder}/{before.point}"
        why = f"is not the one that {node.point} names as its predecessor: another hash"
        yield _finding(chain, Trouble.REWRITTEN, before.point, there, why)
    step = node.number - before.number
    if step < 1 or (step > 1 and node.stone is None):
        why = f"has number {node.number}, and its predecessor {before.number}"
        yield _finding(chain, Trouble.CONTRADICTION, node.point, name, why)


def _covers(chain: Chain, node: Node, noted: Head) -> bool:
    """Whether a tombstone speaks for a number: those between its predecessor's and its own."""
    first = _before(chain, node)
    return node.stone is not None and first is not None and first < noted.number < node.number


def _before(chain: Chain, node: Node) -> int | None:
    """The number of a node's predecessor, 0 without one; ``None`` if that is missing."""
    if node.previous is None:
        return 0
    before = chain.nodes.get(node.previous)
    return None if before is None else before.number


def _forgotten(node: Node) -> bool:
    """Whether its manifest was removed by a person because it could not be read: nothing is known of its link."""
    return node.stone is not None and node.number == 0


def _finding(chain: Chain, trouble: Trouble, point: RestorePointId, name: str, why: str) -> Finding:
    return Finding(trouble, chain.folder, chain.machine, chain.machine_name, point, name, why)
