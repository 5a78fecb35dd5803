"""Virtual disks as ESXi lays them down in files: a flat base, and a chain of snapshots' deltas above it, read-only.

::

    vm-000002.vmdk  parentCID ──┐   delta, seSparse (VMFS 6) or vmfsSparse (VMFS 5): |##|  |zz|  |
    vm-000001.vmdk  CID ◄───────┘                                                    |  |##|  |##|
    vm.vmdk         parentCID ffffffff, flat                                         |00|11|22|33|
    disk                                                                             |##|##|zz|##|

    with open_vmdk(lambda path: VmfsFile(datastore, path), "vm/vm-000001.vmdk", Subject("san", disk.key)) as source: …

Only what lies below the delta that a host writes to may be given to it. What is unusual is a ``TransportRefused`` whose reason
is a ``VmdkReason``, or a ``VmfsReason`` of the files under it.

``stream_reader`` and ``stream_writer`` are for disks on their way: the stream-optimised form that hosts send and take.
"""

from proxy.transport.vmdk.chain import VmdkChain, open_vmdk
from proxy.transport.vmdk.descriptor import VmdkReason

__all__ = ["VmdkChain", "VmdkReason", "open_vmdk"]
