"""The file in which an index run keeps what the next one builds on."""

from pathlib import Path

import numpy as np
import pytest

from mounter.index.incremental import VolumeMemory
from mounter.index.memory import Memory, load, save
from mounter.layout.model import Node, Tree
from mounter.ports import FileType


@pytest.fixture
def memory() -> Memory:
    nodes = {
        2: Node(FileType.DIRECTORY, 4096, 0o755, 0, 0, 1, 2),
        11: Node(FileType.FILE, 1 << 50, 0o4640, 1 << 31, 5, -1, 10**18, None, True),
        12: Node(FileType.SYMLINK, 3, 0o777, 0, 0, 0, 0, b"\xff/x"),
        13: Node(FileType.SYMLINK, 0, 0o777, 0, 0, 0, 0, b""),
    }
    tree = Tree(
        2, nodes, {2: {b"a": 11, b"\xff\n": 12, b"c": 13}, 14: {}}, {"keys": np.array([[2, 7]], dtype=np.int64)}
    )
    volume = VolumeMemory("ext4", "vda:1+2", b"/", b"\x01\x02", 77, tree)
    return Memory("20261122-1", {"vda": "digest"}, {"volume": volume})


def test_what_was_saved_is_loaded(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "maps" / "machine.zst"
    save(path, memory)
    found = load(path)
    assert found is not None
    assert (found.point, found.images) == (memory.point, memory.images)
    (mine,), (other,) = memory.volumes.values(), found.volumes.values()
    assert (mine.kind, mine.place, mine.prefix, mine.fingerprint, mine.full_bytes) == (
        *(other.kind, other.place, other.prefix),
        *(other.fingerprint, other.full_bytes),
    )
    assert (mine.tree.nodes, mine.tree.children) == (other.tree.nodes, other.tree.children)
    assert np.array_equal(mine.tree.extra["keys"], other.tree.extra["keys"])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_no_file_is_no_memory(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing") is None


def test_a_file_that_was_cut_off_or_changed_is_no_memory(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "machine.zst"
    save(path, memory)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert load(path) is None
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert load(path) is None


def test_the_file_is_replaced_as_a_whole(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "machine.zst"
    path.write_bytes(b"old")
    huge = Node(FileType.FILE, 1 << 70, 0, 0, 0, 0, 0)
    memory.volumes["volume"].tree.nodes[11] = huge
    with pytest.raises(OverflowError):
        save(path, memory)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
