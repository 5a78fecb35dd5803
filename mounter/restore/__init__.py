"""Files out of a restore point: one traversal (``tree.py``) into any ``mounter.targets.FileTarget``.

::

    MountSession ──> restore_files ──┬─> DirectoryTarget     a directory of this host
      (tree.py, selection.py)        ├─> TarTarget           a stream: tar, tar.zst
                                     ├─> ZipTarget           a stream: zip
                                     └─> GuestTarget         a guest that is running (guest.py)
"""
