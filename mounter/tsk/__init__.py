"""The fast path: guest file systems read with The Sleuth Kit over NBD, without booting anything.

::

    sockets ── image.Disk ── partitions ── recognise ──┬─ ext.Ext   ─┐
                 (cache)      (Region)    (as blkid)   ├─ ntfs.Ntfs ─┼─ filesystem.TskFilesystem  (the port)
                                                       └─ fat.Fat   ─┘
                                              library.TskVolume: directories, contents, runs (the only importer of pytsk3)

All or nothing: when one volume of a machine is not for this reader, ``FastPathRefused`` says why, and the appliance opens
all of them. So volumes, mount points and paths are the same whoever reads. What the disks hold is hostile: this runs in
``worker.py``, behind ``sandbox.py``.
"""
