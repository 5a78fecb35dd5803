"""How a frozen disk's bytes reach the proxy, and how a restore's bytes reach a device.

Ways to read::

    san.py             mode ``san``: over the array's fabric, with an iSCSI initiator of our own (iscsi/); see SAN.md
    vmfs_san/          mode ``san``: the same for disks of vSphere on VMFS; over vmfs/ and vmdk/, which read the formats
    raw.py             mode ``raw``: files in shared directories, block devices of the kernel (multipath, FC)
    lan.py             mode ``lan``: from the hypervisor, over NBD
    nfc.py             mode ``lan``: disks of vSphere, streamed by their host (vmdk/stream_*.py is the format)
    vddk.py            mode ``lan``: the same over VMware's own library, where an administrator has installed it
    nbd.py             NBD exports as source and target; the one module that imports libnbd

What they share::

    layers.py          a disk's chain of images as one source, in containers that a mode opens
    qcow2.py           a qcow2 image as a source: data, holes, bitmaps
    qcow2_format.py    its header, tables and bitmap directory, pure
    qcow2_map.py       its cluster tables as a map of runs
    qcow2_cluster.py   its clusters: plain, zero, compressed
    runs.py            maps collected in bounded memory
    guard.py           range and closed checks of every source and target

The way back::

    target.py          opens what a restore named, after every check; tells which disks lie where
    lun_target.py      writing to one LUN
    file_target.py     writing to one file
    nfc_target.py      disks of a vSphere machine in the making; nfc_order.py: what comes in any order, in order
    signatures.py      what a device carries, before it is overwritten

In memory, for tests, held to the same contracts::

    memory.py          source, target and transport
    memory_targets.py  places to restore to
"""
