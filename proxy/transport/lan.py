"""The ``lan`` transport: the hypervisor itself serves the frozen disk over NBD, encrypted where it crosses a network.

It works wherever the hypervisor works, costs the host's CPU and network, and is therefore the last choice. The snapshot
must have been asked for it (``SnapshotRequest.pull``): its disks then have an ``NbdAddress`` as their only layer, which
shows the whole chain, whatever format lies under it.
"""

from proxy.errors import TransportRefused
from proxy.model import Format, FrozenDisk, NbdAddress
from proxy.ports import BlockSource
from proxy.transport.nbd import NbdSource

MODE = "lan"


class LanTransport:
    """Opens pull-mode exports. Refuses with ``not-exported`` (the snapshot was not made for it), ``size-mismatch`` and
    ``nbd-unreachable``."""

    mode = MODE

    def probe(self, disk: FrozenDisk) -> None:
        """Connects and leaves again. Raises ``TransportRefused``."""
        self.open(disk).close()

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Raises ``TransportRefused``. ``changed`` of the source reads the bitmap that the address names."""
        address = _address(disk)
        # Neither host nor socket: a machine that migrated between two backups still has the same disks.
        source = NbdSource(address, mode=MODE, disk=disk.key, identity=f"nbd:{disk.key}")
        if source.size != disk.size:
            source.close()
            detail = f"{source.identity} has {source.size} bytes, the disk has {disk.size}"
            raise TransportRefused(MODE, disk.key, "size-mismatch", detail)
        return source


def _address(disk: FrozenDisk) -> NbdAddress:
    match disk.layers:
        case (layer,) if isinstance(layer.location, NbdAddress) and layer.format is Format.RAW:
            return layer.location
        case _:
            places = ", ".join(type(layer.location).__name__ for layer in disk.layers) or "nothing"
            raise TransportRefused(
                MODE,
                disk.key,
                "not-exported",
                f"the hypervisor gave {places}, not one NBD export",
                hint="the snapshot must be asked for a pull",
            )
