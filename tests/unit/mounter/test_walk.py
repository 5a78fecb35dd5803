from collections.abc import Iterator, Sequence

import pytest

from mounter.memory import MemoryFilesystem
from mounter.ports import FileEntry, Volume
from mounter.walk import TreeWalk
from proxy.errors import MountEnded, MountFailed


class Breaking:
    """A source whose volume ``data`` fails after its first batch."""

    def __init__(self, below: MemoryFilesystem, error: Exception) -> None:
        self._below, self._error = below, error

    def volumes(self) -> Sequence[Volume]:
        """As below."""
        return self._below.volumes()

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        """As below, for a while."""
        yield from self._below.walk(volume)
        if volume.id == "data":
            raise self._error


def test_all_volumes_are_walked_in_the_guests_own_terms(filesystem: MemoryFilesystem) -> None:
    records = [record for batch in TreeWalk(filesystem) for record in batch]
    assert {(r.volume, r.path) for r in records} == {
        ("root", b"/etc"),
        ("root", b"/etc/hostname"),
        ("root", b"/data"),
        ("root", b"/data/hidden"),
        ("root", b"/link"),
        ("data", b"/data/journal"),
        ("data", b"/data/database"),
        ("loose", b"/dev/sdc:/x"),
    }
    assert {r.path: r.link_target for r in records if r.link_target} == {b"/link": b"/etc/passwd"}


def test_a_volume_that_breaks_is_told_and_the_others_go_on(filesystem: MemoryFilesystem) -> None:
    walk = TreeWalk(Breaking(filesystem, MountFailed("volume", "I/O error")))
    volumes = walk.volumes
    paths = {record.path for batch in walk for record in batch}
    assert {b"/data/journal", b"/dev/sdc:/x"} <= paths
    assert {v.id: v.problem for v in volumes} == {
        "root": None,
        "data": "cannot open volume for files: I/O error",
        "loose": None,
        "broken": "bad superblock",
    }


def test_a_session_that_is_over_is_no_problem_of_a_volume(filesystem: MemoryFilesystem) -> None:
    with pytest.raises(MountEnded):
        list(TreeWalk(Breaking(filesystem, MountEnded("killed"))))
