"""Files out of a restore point: one traversal (``tree.py``) into any ``mounter.targets.FileTarget``.

::

    MountSession ──> restore_files ──┬─> DirectoryTarget     a directory of this host
      (tree.py, selection.py)        ├─> TarTarget           a stream: tar, tar.zst
                                     ├─> ZipTarget           a stream: zip
                                     └─> (mounter/guest_target.py: a guest that is running)
"""
