"""Mode ``san`` for vSphere: frozen disks straight from the LUNs of their VMFS datastore, no host in the data path.

::

    VmdkAddress      datastore's LUNs by name      luns.py            the proxy's own iSCSI sessions, or kernel devices
      ├ volume       file system by its UUID       proxy.transport.vmfs
      ├ path         frozen descriptor, parents    frozen.py          proxy.transport.vmdk on it; fingerprint, locks
      └ bytes        planned reads                 planner.py, source.py

    transport.py     opens a disk, after every check: the safety protocol, in the order of its docstring
    checks.py        what is asked of an address, of a volume, of a map (pure)
    qualification.py the first disk of a datastore is read another way too, 16 blocks of it; the verdict is kept

Whatever is unusual is a ``TransportRefused`` whose reason is a ``VmfsSanReason``, a ``SanReason`` (finding the LUNs), a
``VmfsReason`` or a ``VmdkReason`` (understanding what is on them). SAN.md lists them all.
"""

from proxy.transport.vmfs_san.checks import AllocatedOracle
from proxy.transport.vmfs_san.luns import BlockLun, FabricLuns, KernelLuns, LunOpener, SiteLuns
from proxy.transport.vmfs_san.qualification import OtherWay, Qualification, Verdict
from proxy.transport.vmfs_san.reasons import VmfsSanReason
from proxy.transport.vmfs_san.source import VmfsSource
from proxy.transport.vmfs_san.transport import VmfsTransport

__all__ = [
    "AllocatedOracle",
    "BlockLun",
    "FabricLuns",
    "KernelLuns",
    "LunOpener",
    "OtherWay",
    "Qualification",
    "SiteLuns",
    "Verdict",
    "VmfsSanReason",
    "VmfsSource",
    "VmfsTransport",
]
