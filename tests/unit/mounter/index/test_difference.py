"""What differs between two trees of one volume, drawn and then tested."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.index.difference import difference
from mounter.layout.model import Node, Tree
from mounter.ports import FileType

ROOT = 2


def node(kind: FileType, size: int = 0) -> Node:
    return Node(kind, size, 0o644, 0, 0, 0, 0)


def tree(shape: dict[str, int], directories: set[int], sizes: dict[int, int] | None = None) -> Tree:
    """``shape``: path -> inode; directories are those whose numbers are named."""
    children: dict[int, dict[bytes, int]] = {n: {} for n in directories | {ROOT}}
    for path, number in shape.items():
        parent, _, name = path.rpartition("/")
        children[shape[parent] if parent else ROOT][name.encode()] = number
    nodes = {
        n: node(FileType.DIRECTORY if n in children else FileType.FILE, (sizes or {}).get(n, 0)) for n in shape.values()
    }
    return Tree(ROOT, {ROOT: node(FileType.DIRECTORY), **nodes}, children)


def told(before: Tree, now: Tree) -> tuple[set[bytes], list[bytes]]:
    found = difference(before, now)
    return set(found.gone), [path for path, _ in found.listed]


def test_nothing_differs_in_the_same_tree() -> None:
    both = tree({"/a": 10, "/a/x": 11}, {10})
    assert told(both, both) == (set(), [])


def test_a_file_that_was_written_is_listed_under_all_its_names() -> None:
    before = tree({"/a": 10, "/a/x": 11, "/y": 11}, {10})
    now = tree({"/a": 10, "/a/x": 11, "/y": 11}, {10}, {11: 5})
    assert told(before, now)[0] == set()
    assert set(told(before, now)[1]) == {b"/a/x", b"/y"}


def test_a_renamed_directory_is_gone_and_listed_with_all_below() -> None:
    before = tree({"/a": 10, "/a/b": 12, "/a/b/x": 11, "/z": 13}, {10, 12})
    now = tree({"/c": 10, "/c/b": 12, "/c/b/x": 11, "/z": 13}, {10, 12})
    assert told(before, now) == ({b"/a"}, [b"/c", b"/c/b", b"/c/b/x"])


def test_a_directory_that_is_a_file_now_is_gone_and_listed() -> None:
    before = tree({"/a": 10, "/a/x": 11}, {10})
    assert told(before, tree({"/a": 20}, set())) == ({b"/a"}, [b"/a"])
    assert told(before, tree({"/a": 10}, set())) == ({b"/a"}, [b"/a"])  # and has its number, too


def test_two_directories_that_changed_places_are_listed_anew() -> None:
    before = tree({"/a": 10, "/b": 12, "/a/x": 11, "/b/y": 13}, {10, 12})
    now = tree({"/a": 12, "/b": 10, "/b/x": 11, "/a/y": 13}, {10, 12})
    gone, listed = told(before, now)
    assert gone == {b"/a", b"/b"}
    assert set(listed) == {b"/a", b"/b", b"/a/y", b"/b/x"}


def test_a_change_below_a_directory_that_moved_is_told_at_its_new_place_alone() -> None:
    before = tree({"/a": 10, "/a/x": 11, "/b": 12}, {10, 12})
    now = tree({"/b": 12, "/b/a": 10, "/b/a/x": 11, "/b/a/new": 14}, {10, 12}, {11: 9})
    gone, listed = told(before, now)
    assert gone == {b"/a"}
    assert sorted(listed) == [b"/b/a", b"/b/a/new", b"/b/a/x"]


@st.composite
def shapes(draw: st.DrawFn) -> Tree:
    """Trees over few names and numbers, so that numbers are used again for other things."""
    directories: set[int] = set()
    shape: dict[str, int] = {}
    tops = [""]
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(tops))
        path = f"{parent}/{draw(st.sampled_from('abcd'))}"
        number = draw(st.integers(10, 18))
        if path in shape or number in directories:
            continue
        if draw(st.booleans()) and number not in shape.values():
            directories.add(number)
            tops.append(path)
        shape[path] = number
    return tree(shape, directories, {n: draw(st.integers(0, 1)) for n in range(10, 19)})


def everything(of: Tree) -> dict[bytes, tuple[int, Node]]:
    found: dict[bytes, tuple[int, Node]] = {}
    waiting = [(b"", of.root)]
    while waiting:
        path, directory = waiting.pop()
        for name, child in of.children[directory].items():
            found[path + b"/" + name] = (child, of.nodes[child])
            if child in of.children:
                waiting.append((path + b"/" + name, child))
    return found


@pytest.mark.slow
@given(shapes(), shapes())
def test_the_difference_makes_the_one_from_the_other(before: Tree, now: Tree) -> None:
    found = difference(before, now)
    kept = {
        path: fact
        for path, fact in everything(before).items()
        if not any(path == gone or path.startswith(gone + b"/") for gone in found.gone)
    }
    kept.update({path: (number, now.nodes[number]) for path, number in found.listed})
    assert kept == everything(now)
    assert len(found.listed) == len({path for path, _ in found.listed})
