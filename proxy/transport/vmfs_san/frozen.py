"""A frozen descriptor and its parents on a datastore, as they are on the LUNs at one moment; what must not change meanwhile.

``fingerprint`` covers all that says where the disk's bytes are: descriptors, delta tables, file descriptors, pointer blocks.
Times of access and locks are not in it. A hypervisor that consolidates, reverts or moves the disk changes some of it.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePosixPath
from posixpath import normpath

from proxy.closing import Closeable
from proxy.errors import TransportRefused
from proxy.extents import Extent
from proxy.model import VmdkAddress
from proxy.ports import BlockSource
from proxy.transport.san import MODE
from proxy.transport.vmdk import VmdkChain, open_vmdk
from proxy.transport.vmfs import Subject, VmfsFile, open_datastore
from proxy.transport.vmfs_san.checks import check_device_names
from proxy.transport.vmfs_san.luns import BlockLun
from proxy.transport.vmfs_san.reasons import VmfsSanReason, refused

VOLUMES = PurePosixPath("/vmfs/volumes")
"""Where hosts mount datastores, by UUID and by name."""

LOCK_NONE, LOCK_EXCLUSIVE, LOCK_READ, LOCK_SHARED = 0, 1, 2, 3
"""Modes of a file's lock (VMware KB 10051): nobody has it open; one host writes to it; hosts read it; several write to it."""


class FrozenChain(Closeable):
    """The chain of one disk. The LUNs stay the caller's; reads may come from many threads at once."""

    def __init__(self, luns: Sequence[BlockLun], address: VmdkAddress, disk: str) -> None:
        """Opens the volume and every file of the chain. Raises ``TransportRefused``, ``ReadFailed``."""
        self.disk = disk
        self._luns = luns
        self._address = address
        self._fs = open_datastore(luns, Subject(MODE, disk), uuid=address.volume)
        check_device_names(self._fs, address, disk)
        self.chain: VmdkChain = open_vmdk(self._open, address.path, self._fs.subject)
        self.files = [file for file in self.chain.files() if isinstance(file, VmfsFile)]
        try:
            self._check_locks()
        except TransportRefused:
            self.close()
            raise

    def fingerprint(self) -> bytes:
        """32 bytes, of what was read at opening (file system) and of what is there now (tables of deltas)."""
        digest = blake2b(self.chain.digest(), digest_size=32)
        for file in self.files:
            digest.update(file.map.fingerprint())
        return digest.digest()

    def now(self) -> bytes:
        """The fingerprint of the same path as it is on the LUNs now: nothing that was read before is used, and each LUN is
        asked who it is. Raises ``TransportRefused``, ``ReadFailed``."""
        for lun in self._luns:
            lun.recognise()
        with FrozenChain(self._luns, self._address, self.disk) as again:
            return again.fingerprint()

    def features(self) -> frozenset[str]:
        """What had to be understood to read this disk, for qualification: kinds of extents, large blocks."""
        kinds = {str(line.kind) for descriptor in self.chain.descriptors for line in descriptor.extents}
        large = {"large-blocks"} if any(file.map.uses_large_blocks() for file in self.files) else set()
        return frozenset(kinds | large)

    def extents(self) -> Sequence[Extent]:
        """The map of the disk. Refuses what is not understood anywhere in it."""
        return self.chain.extents()

    def close(self) -> None:
        """Closes the files."""
        self.chain.close()

    def _check_locks(self) -> None:
        """Refuses a file that a host may write to: what is frozen is open for reading at most."""
        for file in self.files:
            mode = file.file.lock_mode
            if mode not in {LOCK_NONE, LOCK_READ}:
                detail = f"{file.path} has lock mode {mode}, held by {file.file.lock_owner}"
                raise refused(self.disk, VmfsSanReason.IN_USE, detail)

    def _open(self, path: str) -> BlockSource:
        return VmfsFile(self._fs, self._within(path))

    def _within(self, path: str) -> str:
        """A path on this datastore. Parents may be named from the hosts' root, or on another datastore (linked clones)."""
        where = PurePosixPath(normpath(path))
        if not where.is_absolute():
            if where.parts[:1] == ("..",):
                raise refused(self.disk, VmfsSanReason.OTHER_DATASTORE, f"{path} leads out of the datastore")
            return str(where)
        known = {self._fs.descriptor.uuid, self._fs.descriptor.label}
        if where.parts[:3] != VOLUMES.parts or len(where.parts) < 5 or where.parts[3] not in known:
            raise refused(self.disk, VmfsSanReason.OTHER_DATASTORE, path)
        return str(PurePosixPath(*where.parts[4:]))
