"""What differs between two trees of one volume: entries to be recorded anew, and entries that are gone.

::

    before          now                 gone: a, and with it all below      listed: b, b/x, d (its record changed)
    ├── a/          ├── b/   (renamed)
    │   └── x       │   └── x
    ├── d           ├── d    (written)
    └── e           └── e               e is not mentioned: it is as it was
"""

from collections.abc import Iterable, Iterator, Mapping
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
        if was is not held and was is not None and was != held and places.stays(number):
            _compare(before, now, places.path(number), was, held, out)
    # Records that changed under names that did not: with hard links a record has several.
    for number, held in now.children.items():
        if not changed.isdisjoint(held.values()) and places.stays(number):
            was = before.children.get(number, {})
            for name, child in held.items():
                if child in changed and was.get(name) == child and _same_kind(before, now, child):
                    out.listed.append((places.path(number) + b"/" + name, child))
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
    before: Tree, now: Tree, path: bytes, was: Mapping[bytes, int], held: Mapping[bytes, int], out: Difference
) -> None:
    """One directory that is where it was: names that went, came, or mean something else."""
    for name in was.keys() - held.keys():
        out.gone.append(path + b"/" + name)
    for name, child in held.items():
        old = was.get(name)
        if old == child and _same_kind(before, now, child):
            continue
        full = path + b"/" + name
        if old is not None and old in before.children:
            out.gone.append(full)
        out.listed.append((full, child))
        if child in now.children:
            out.listed += below(now.children, full, child)


def _same_kind(before: Tree, now: Tree, number: int) -> bool:
    """Whether an inode is a directory in both or in none; else its number was taken by something new."""
    return (number in before.children) == (number in now.children)


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
        while number not in self._known:
            chain.append(number)
            place = self._now[number]
            if self._before.get(number) != place:
                self._known[number] = False
                break
            number = place[0]
        for each in reversed(chain):
            self._known.setdefault(each, self._known[self._now[each][0]])
        return self._known[chain[0] if chain else number]

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
