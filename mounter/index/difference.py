"""What differs between two trees of one volume: entries to be recorded anew, and entries that are gone.

::

    before          now                 gone: a, and with it all below      listed: b, b/x, d (its record changed)
    ├── a/          ├── b/   (renamed)
    │   └── x       │   └── x
    ├── d           ├── d    (written)
    └── e           └── e               e is not mentioned: it is as it was
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from mounter.layout.model import Tree
from mounter.ports import FileType

Children = Mapping[int, Mapping[bytes, int]]


@dataclass(slots=True)
class Difference:
    """Paths within the volume. ``gone``: each takes along all that lay below it. ``listed``: path and inode; where one is
    in both, something else now has the name."""

    gone: list[bytes] = field(default_factory=list)
    listed: list[tuple[bytes, int]] = field(default_factory=list)


def difference(before: Tree, now: Tree) -> Difference:
    """``listed`` has every path whose record or inode is another one than before, a directory before what it holds."""
    out = Difference()
    if before is now:
        return out
    places = _Places(before, now)
    changed = {n for n, node in now.nodes.items() if before.nodes.get(n) != node}
    for number, held in now.children.items():
        was = before.children.get(number)
        if was is None or not places.stays(number):
            continue  # it is new or somewhere else, and listed with what it is in
        if was != held or not changed.isdisjoint(held.values()):
            _compare((before, now), changed, places.path(number), out)(was, held)
    return out


def below(children: Children, path: bytes, number: int) -> Iterator[tuple[bytes, int]]:
    """Path and inode of everything under a directory, a directory before what it holds."""
    waiting = [(path, number)]
    while waiting:
        at, directory = waiting.pop()
        for name, child in children.get(directory, {}).items():
            full = at + b"/" + name
            yield full, child
            if child in children:
                waiting.append((full, child))


def _compare(
    trees: tuple[Tree, Tree], changed: Set[int], path: bytes, out: Difference
) -> Callable[[Mapping[bytes, int], Mapping[bytes, int]], None]:
    """For one directory that is where it was: names that went, came, or mean something else, and written records."""
    before, now = (tree.children for tree in trees)

    def compare(was: Mapping[bytes, int], held: Mapping[bytes, int]) -> None:
        out.gone += (path + b"/" + name for name in was.keys() - held.keys())
        for name, child in held.items():
            old = was.get(name)
            full = path + b"/" + name
            # A directory's number may be a file's now, or the other way round: that is something else, too.
            if old == child and (child in before) == (child in now):
                if child in changed:
                    out.listed.append((full, child))
                continue
            if old is not None and old in before:
                out.gone.append(full)
            out.listed.append((full, child))
            out.listed += below(now, full, child)

    return compare


class _Places:
    """Which directories are where they were, under the same directories, and their paths."""

    def __init__(self, before: Tree, now: Tree) -> None:
        self._before = dict(_parents(before))
        self._now = dict(_parents(now))
        self._known: dict[int, bool] = {now.root: before.root == now.root}
        self._paths: dict[int, bytes] = {now.root: b""}

    def stays(self, number: int) -> bool:
        """Whether the directory had the same path and the same directories above it before."""
        chain: list[int] = []
        here = number
        while here not in self._known:
            chain.append(here)
            if self._before.get(here) != self._now[here]:
                self._known[here] = False
            else:
                here = self._now[here][0]
        answer = self._known[here]
        self._known.update(dict.fromkeys(chain, answer))
        return answer

    def path(self, number: int) -> bytes:
        """Path of a directory now; empty for the root."""
        chain: list[int] = []
        while number not in self._paths:
            chain.append(number)
            number = self._now[number][0]
        for each in reversed(chain):
            parent, name = self._now[each]
            self._paths[each] = self._paths[parent] + b"/" + name
        return self._paths[chain[0] if chain else number]


def _parents(tree: Tree) -> Iterable[tuple[int, tuple[int, bytes]]]:
    """Each directory but the root, with the directory above it and its name there."""
    children = tree.children
    for number, held in children.items():
        for name, child in held.items():
            if child in children and tree.nodes[child].type is FileType.DIRECTORY:
                yield child, (number, name)
