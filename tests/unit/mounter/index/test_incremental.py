"""An index run over sessions in memory: what is taken over, what is walked as a whole, and why."""

from collections.abc import Iterator, Sequence

from mounter.index.incremental import IncrementalWalk, Raw
from mounter.layout.model import Changes, Doubt
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, Volume, VolumeState
from mounter.walk import FileRecord
from proxy.model import ReasonCode

EXT = Volume("root", "/dev/sda1", "ext4", "", "u1", 1 << 16, "/", state=VolumeState.CLEAN, state_detail="clean")
XFS = Volume("data", "/dev/sdb", "xfs", "", "u2", 1 << 16, "/data", state=VolumeState.CLEAN, state_detail="clean")
DIRTY = Volume(
    "log", "/dev/sdc", "ext4", "", "u3", 1 << 16, "/log", state=VolumeState.DIRTY, state_detail="needs_recovery"
)
BROKEN = Volume("broken", "/dev/sdd", "ext4", "", "u4", 100, "/broken", "bad superblock")


class Session:
    """All guest paths are those of the first volume, which is enough for what is asked here."""

    def __init__(self, *volumes: Volume) -> None:
        made = [MemoryVolume(volume) for volume in volumes]
        for volume in made:
            volume.add_file(b"/etc/hosts", b"x")
        self._filesystem = MemoryFilesystem(made)

    def volumes(self) -> Sequence[Volume]:
        return self._filesystem.volumes()

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        return self._filesystem.walk(volume)

    def entry(self, path: bytes) -> FileEntry:
        return self._filesystem.entry(self.volumes()[0], path)


class Noise:
    """A volume whose bytes make no sense."""

    size = 1 << 16

    def pread(self, offset: int, length: int) -> bytes:
        return bytes((offset + n) * 7 % 251 for n in range(length))


def raw(changes: Changes | None = None) -> Raw:
    return Raw(Noise(), "vda:0+65536", lambda: 0, changes)


def records(walk: IncrementalWalk) -> list[FileRecord]:
    return [record for batch in walk for record in batch]


def test_volumes_that_are_not_read_in_parts_are_walked_with_the_reason() -> None:
    walk = IncrementalWalk(Session(EXT, XFS), {}, Doubt.NO_MEMORY)
    assert walk.carried == frozenset()
    assert {r.path for r in records(walk)} == {b"/etc", b"/etc/hosts", b"/data/etc", b"/data/etc/hosts"}
    assert [(r.code, r.detail.split(": ")[:2]) for r in walk.reasons] == [
        (ReasonCode.INDEX_FULL, ["/dev/sda1", "in-a-container"]),
        (ReasonCode.INDEX_FULL, ["/dev/sdb", "unknown-format"]),
    ]
    assert walk.memory == {}


def test_a_format_that_is_not_read_in_parts_is_walked() -> None:
    walk = IncrementalWalk(Session(XFS), {"/dev/sdb": raw()}, {})
    assert len(records(walk)) == 2
    assert "unknown-format: xfs" in walk.reasons[0].detail


def test_a_journal_that_was_not_replayed_is_a_reason() -> None:
    walk = IncrementalWalk(Session(DIRTY), {"/dev/sdc": raw(Changes.of((), 0, 0))}, {})
    assert len(records(walk)) == 2
    assert "dirty: needs_recovery" in walk.reasons[0].detail
    assert walk.memory == {}


def test_bytes_that_make_no_sense_are_a_reason_and_no_error() -> None:
    walk = IncrementalWalk(Session(EXT), {"/dev/sda1": raw()}, {})
    assert len(records(walk)) == 2
    assert walk.reasons[0].code is ReasonCode.INDEX_FULL
    assert walk.memory == {}


def test_a_volume_that_cannot_be_opened_has_no_reason_and_its_problem() -> None:
    walk = IncrementalWalk(Session(BROKEN, EXT), {}, Doubt.NO_MEMORY)
    assert len(records(walk)) == 2
    assert [v.problem for v in walk.volumes] == ["bad superblock", None]
    assert len(walk.reasons) == 1


def test_the_state_of_a_volume_is_read_where_nobody_told_it() -> None:
    silent = Volume("root", "/dev/sda1", "ext4", "", "u1", 1 << 16, "/")
    walk = IncrementalWalk(Session(silent), {"/dev/sda1": raw()}, {})
    assert walk.volumes[0].state is VolumeState.UNKNOWN
    assert walk.volumes[0].state_detail.startswith("cannot be told")
