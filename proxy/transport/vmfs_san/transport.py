"""Opens a frozen vSphere disk on the SAN, after every check; each is a refusal, after which a LAN transport may read it.

::

    1  address       VMFS, not encrypted, UUID and LUNs known            checks.address_of
    2  LUNs          found by name on the fabric, or in the kernel       luns.py
    3  volume        file system's UUID; the names that hosts wrote      frozen.FrozenChain, checks.check_device_names
    4  chain         CIDs, sizes, journals; no file open for writing     frozen.FrozenChain
    5  map           understood as a whole; read twice, equal            frozen.FrozenChain.fingerprint, now
    6  cross-check   all that the hypervisor calls allocated is data     checks.check_allocation
    7  sample        16 blocks as a host reads them, first use           qualification.py
       … reading …
    8  confirm       same LUNs, same map after the last byte             source.VmfsSource.confirm
"""

from collections.abc import Sequence
from contextlib import ExitStack

from proxy.errors import ChangesUnknown, TransportRefused
from proxy.extents import Extent, total
from proxy.model import FrozenDisk, VmdkAddress
from proxy.ports import BlockSource
from proxy.transport.raw import SharedFiles
from proxy.transport.san import MODE, SanFabric
from proxy.transport.vmfs import VmfsReason
from proxy.transport.vmfs_san.checks import AllocatedOracle, address_of, check_allocation
from proxy.transport.vmfs_san.frozen import FrozenChain
from proxy.transport.vmfs_san.luns import BlockLun, LunOpener, SiteLuns
from proxy.transport.vmfs_san.qualification import Qualification
from proxy.transport.vmfs_san.reasons import VmfsSanReason, refused
from proxy.transport.vmfs_san.source import VmfsSource


class VmfsTransport:
    """Mode ``san`` for disks on VMFS. Calls may come from many threads.

    ``oracle``: the hypervisor's own account of what is allocated; ``None``, or one that does not know: step 6 is left out.
    ``qualification``: ``None`` leaves out step 7; disks in large blocks, which nobody here has seen as a host writes them,
    are refused then. ``luns``: how LUNs are reached, if not over ``fabric`` and then this machine's kernel (``files``).
    """

    mode = MODE

    def __init__(
        self,
        fabric: SanFabric,
        oracle: AllocatedOracle | None = None,
        qualification: Qualification | None = None,
        *,
        files: SharedFiles | None = None,
        luns: LunOpener | None = None,
    ) -> None:
        self._luns = luns or SiteLuns(fabric, files)
        self._oracle = oracle
        self._qualification = qualification

    def probe(self, disk: FrozenDisk) -> None:
        """Steps 1 and 2 without a login that lasts, and the verdict of 7. Raises ``TransportRefused``."""
        address = address_of(disk)
        if self._qualification is not None:
            self._qualification.check(address, disk.key)
        for name in address.devices:
            self._luns.find(name)

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Steps 1 to 7. Raises ``TransportRefused``, ``ReadFailed``, ``DeviceBusy``."""
        address = address_of(disk)
        if self._qualification is not None:
            self._qualification.check(address, disk.key)
        with ExitStack() as opened:
            luns: list[BlockLun] = []
            for name in address.devices:
                luns.append(self._luns.open(name))
                opened.callback(luns[-1].close)
            frozen = opened.enter_context(FrozenChain(luns, address, disk.key))
            if disk.size and frozen.chain.size != disk.size:
                detail = f"{address.path} is of {frozen.chain.size} bytes, the disk has {disk.size}"
                raise refused(disk.key, VmfsSanReason.SIZE_MISMATCH, detail)
            extents, fingerprint = _read_twice(frozen)
            self._cross_check(disk, address, extents)
            source = VmfsSource(frozen, luns, extents, fingerprint)
            self._qualify(disk, address, frozen, source)
            opened.pop_all()
        return source

    def _cross_check(self, disk: FrozenDisk, address: VmdkAddress, extents: Sequence[Extent]) -> None:
        """Step 6."""
        if self._oracle is None:
            return
        try:
            allocated = self._oracle.allocated(address)
        except ChangesUnknown:
            return  # change tracking is off, or was just turned on: the map stands on what else was checked
        check_allocation(allocated, extents, total(extents), disk.key)

    def _qualify(self, disk: FrozenDisk, address: VmdkAddress, frozen: FrozenChain, source: VmfsSource) -> None:
        """Step 7."""
        features = frozen.features()
        if self._qualification is not None:
            self._qualification.qualify(disk, address, source, features)
        elif "large-blocks" in features:
            detail = "the disk lies in large blocks, and no sample of it can be compared"
            raise TransportRefused(MODE, disk.key, VmfsReason.LARGE_BLOCK_LAYOUT, detail)


def _read_twice(frozen: FrozenChain) -> tuple[Sequence[Extent], bytes]:
    """Step 5: the map, and the fingerprint that it had before it was read and has still."""
    before = frozen.fingerprint()
    extents = frozen.extents()
    if frozen.now() != before:
        raise refused(frozen.disk, VmfsSanReason.UNSTABLE, f"{frozen.chain.identity} changed while its map was read")
    return extents, before
