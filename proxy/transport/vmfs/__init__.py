"""VMFS 5 and 6, read-only, straight from LUNs: no host, no driver, no writing.

::

    LUNs (anything with ``size`` and ``read_into``)
      └ partitions   GPT, MBR                          partitions.py
        └ volumes    extents of one or several LUNs    lvm.py, lvm_format.py
          └ Vmfs     descriptors, resources, names     filesystem.py, fs_format.py, addresses.py, directory.py
            └ VmfsFile   a ``BlockSource``             source.py, blockmap.py

    datastore = open_datastore([lun0, lun1], Subject("san", disk.key), uuid="68626f2d-…")
    vmx = datastore.read_small("vm1/vm1.vmx")
    with VmfsFile(datastore, "vm1/vm1-flat.vmdk") as disk:
        disk.extents(), disk.places(), disk.read_into(0, buffer), disk.fingerprint()

Everything unusual is a ``TransportRefused`` whose reason is a ``VmfsReason``: another transport may read the disk. Not
supported on purpose: VMFS 3, sectors of 4096 bytes, raw device mappings, partly zeroed blocks, copy-on-write blocks. Large
blocks of 512 MiB are read, but no volume with one was at hand that a host had made: ``BlockMap.uses_large_blocks`` tells.
"""

from proxy.transport.vmfs.filesystem import Vmfs, open_datastore
from proxy.transport.vmfs.lun import Lun
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.transport.vmfs.source import ZERO_PLACE, FilePlace, VmfsFile

__all__ = ["ZERO_PLACE", "FilePlace", "Lun", "Subject", "Vmfs", "VmfsFile", "VmfsReason", "open_datastore"]
