"""Places to restore to, in memory: what the restore use case is tested with. Refuses what the real ones refuse."""

from collections.abc import Mapping

from proxy.errors import ReadFailed, RestoreRefused
from proxy.model import DeviceAddress, FileAddress, Location, LunAddress
from proxy.ports import BlockSource, BlockTarget, DiskPlace
from proxy.transport.memory import Faults, MemorySource, MemoryTarget


class MemoryTargets:
    """``devices``: name (``target/lun`` or path) -> its bytes; a device that is not all zeroes carries a signature."""

    together = False

    def __init__(self, devices: Mapping[str, bytes]) -> None:
        self.devices = {name: MemoryTarget(len(data), identity=name, fill=b"\0") for name, data in devices.items()}
        for name, data in devices.items():
            self.devices[name].data[:] = data
        self.faults = Faults()

    def open(self, place: DiskPlace, size: int, *, overwrite: bool) -> BlockTarget:
        """See the port."""
        self.faults.call("open")
        found = self._device(place)
        if found.size < size:
            raise RestoreRefused(found.identity, f"it has {found.size} bytes, the disk needs {size}")
        if any(found.data) and not overwrite:
            raise RestoreRefused(found.identity, "it carries data", hint="say --overwrite")
        opened = MemoryTarget(size, identity=found.identity, faults=found.faults)
        opened.data = found.data
        return opened

    def read_back(self, place: DiskPlace, size: int) -> BlockSource:
        """See the port."""
        found = self._device(place)
        if found.size < size:
            raise ReadFailed(found.identity, 0, size, f"it has {found.size} bytes")
        return MemorySource(bytes(found.data[:size]), identity=found.identity)

    def holds(self, place: DiskPlace, disk: Location) -> bool:
        """See the port."""
        match disk:
            case LunAddress(target=target, lun=lun):
                return str(place) == f"{target}/{lun}"
            case FileAddress(path=path) | DeviceAddress(path=path):
                return str(place) == path
            case _:
                return False

    def cannot_tell(self, place: DiskPlace, disk: Location) -> bool:
        """Whether nobody can tell if the disk lies on the place: a block device without a name, and a LUN."""
        return not place.path and isinstance(disk, DeviceAddress) and disk.name is None

    def _device(self, place: DiskPlace) -> MemoryTarget:
        try:
            return self.devices[str(place)]
        except KeyError:
            raise RestoreRefused(str(place), "no such device") from None
