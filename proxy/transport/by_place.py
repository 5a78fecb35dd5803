"""One transport of a mode for all kinds of disks: which one serves a disk follows from where the disk lies.

Without this a site with two hypervisors would try one's transport on the other's disks, and each refusal would be told as the
reason of a fall-back.
"""

from collections.abc import Callable

from proxy.errors import TransportRefused
from proxy.model import FrozenDisk, Location
from proxy.ports import BlockSource, Transport

Choose = Callable[[Location], Transport | None]


class ByPlace:
    """The ``Transport`` port over others of one ``mode``. ``choose``: by the location of the disk's top layer; ``None`` if no
    transport of this mode serves such a place."""

    def __init__(self, mode: str, choose: Choose) -> None:
        self.mode = mode
        self._choose = choose

    def probe(self, disk: FrozenDisk) -> None:
        """See the port."""
        self._for(disk).probe(disk)

    def open(self, disk: FrozenDisk) -> BlockSource:
        """See the port."""
        return self._for(disk).open(disk)

    def _for(self, disk: FrozenDisk) -> Transport:
        found = self._choose(disk.layers[0].location) if disk.layers else None
        if found is None:
            where = type(disk.layers[0].location).__name__ if disk.layers else "nowhere"
            raise TransportRefused(self.mode, disk.key, "no-transport-for-place", f"the disk lies at a {where}")
        return found
