"""From disks to volumes: every partition recognised, every file system opened, or the whole machine refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mounter.ports import FileType, FoundVolume, OperatingSystem, Volume, VolumeState, identified
from mounter.tsk.ext import Ext
from mounter.tsk.fat import Fat
from mounter.tsk.image import Disk, Region
from mounter.tsk.native import NONSENSE, Damaged, Native, sensible
from mounter.tsk.ntfs import Ntfs
from mounter.tsk.partitions import Partition, Table, device_name, holds_files, table_of
from mounter.tsk.recognise import Recognised, recognise
from mounter.volumes.mountpoints import Inspection, PartitionFacts, inspect
from mounter.volumes.state import state_of
from proxy.errors import FastPathRefused, MountFailed

_NO_FILES = "no file system that we know"
_OPENERS: Mapping[str, Callable[[Region, str], Native]] = {
    "ext2": Ext,
    "ext3": Ext,
    "ext4": Ext,
    "ntfs": Ntfs,
    "vfat": Fat,
}


@dataclass(frozen=True, slots=True)
class _Opened:
    found: FoundVolume
    native: Native | None


class Machine:
    """Raises ``FastPathRefused`` when one volume is not for this reader, or when it is not sure what is mounted where."""

    def __init__(self, disks: Sequence[Disk]) -> None:
        with sensible("a partition table"):
            tables = [table_of(disk, device_name(number)) for number, disk in enumerate(disks)]
        opened = [o for table in tables for p in table.partitions if (o := _open(p)) is not None]
        opened.sort(key=lambda o: o.found.device)
        inspection = _inspected(opened, tables)
        found = [replace(o.found, mountpoint=inspection.mountpoints.get(o.found.device)) for o in opened]
        self.volumes: tuple[Volume, ...] = identified(found)
        self.systems: tuple[OperatingSystem, ...] = tuple(inspection.systems)
        pairs = zip(self.volumes, opened, strict=True)
        self.natives: dict[str, Native] = {v.id: o.native for v, o in pairs if o.native is not None}


def _open(partition: Partition) -> _Opened | None:
    """``None`` for what the appliance does not list either."""
    with sensible(f"volume {partition.device}"):
        told = recognise(partition.region)
    if told.type == "swap" or (told.type in ("", "unknown") and not holds_files(partition)):
        return None
    if not told.type:
        raise FastPathRefused("unknown", f"{partition.device} holds something that is not known here")
    opener = _OPENERS.get(told.type)
    if opener is None:
        return _Opened(_found(partition, told, problem=_NO_FILES), None)
    state, detail = state_of(told.type, partition.region.pread)
    if state is VolumeState.DIRTY:
        raise FastPathRefused("dirty", f"{partition.device} was not left clean: {detail}")
    try:
        with sensible(f"volume {partition.device}"):
            native = opener(partition.region, partition.device)
            native.names(native.root)
    except Damaged as error:
        raise FastPathRefused("damaged", error.message) from None
    except FastPathRefused:
        raise
    except MountFailed as error:
        raise FastPathRefused("damaged", f"{partition.device}: {error.message}") from None
    found = _found(partition, told, label=native.label or told.label)
    return _Opened(replace(found, state=state, state_detail=detail), native)


def _found(partition: Partition, told: Recognised, *, label: str = "", problem: str | None = None) -> FoundVolume:
    return FoundVolume(partition.device, told.type, label, told.uuid, partition.region.size, problem=problem)


def _inspected(opened: Sequence[_Opened], tables: Sequence[Table]) -> Inspection:
    facts = {
        p.device: PartitionFacts(p.uuid, table.signature, p.region.offset) for table in tables for p in table.partitions
    }
    files = _Files({o.found.device: o.native for o in opened if o.native is not None})
    inspection = inspect([o.found for o in opened], facts, files)
    if inspection.unsure:
        raise FastPathRefused("mount-points", inspection.unsure)
    return inspection


class _Files:
    """What ``inspect`` asks of volumes that have no ids yet. A name with other letter cases is found on NTFS and FAT."""

    def __init__(self, natives: Mapping[str, Native]) -> None:
        self._natives = natives

    def type(self, device: str, path: str) -> FileType | None:
        """Of the entry itself; ``None`` if there is none."""
        inode = self._inode(device, path)
        if inode is None:
            return None
        try:
            return self._natives[device].entry(inode, path.encode()).type
        except (Damaged, *NONSENSE):
            return None

    def read(self, device: str, path: str, offset: int, length: int) -> bytes:
        """Bytes of a regular file that is there."""
        inode = self._inode(device, path)
        native = self._natives[device]
        if inode is None or native.entry(inode, path.encode()).type is not FileType.FILE:
            return b""
        return native.content(inode, offset, length)

    def link(self, device: str, path: str) -> str:
        """Target of a symbolic link that is there."""
        inode = self._inode(device, path)
        target = None if inode is None else self._natives[device].entry(inode, path.encode()).link_target
        return (target or b"").decode(errors="surrogateescape")

    def _inode(self, device: str, path: str) -> int | None:
        native = self._natives[device]
        inode = native.root
        for part in path.encode(errors="surrogateescape").split(b"/"):
            if not part:
                continue
            try:
                names = native.names(inode)
            except (MountFailed, *NONSENSE):
                return None
            folds = not isinstance(native, Ext)
            found = [i for n, i in names if n == part] or [i for n, i in names if folds and n.lower() == part.lower()]
            if not found:
                return None
            inode = found[0]
        return inode
