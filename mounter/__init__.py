"""Opens restore points for files.

::

    ImageReader ── export (NBD, one nbdkit a disk) ──┬── choose ──┬─ tsk          read directly, in a sandbox
                                                     │            └─ libguestfs   in a throw-away appliance (QEMU)
                                                     │                  └─ both in worker.py, a process of its own
                                                     └── other programs: ``lanfree export``

    MountSession ──┬─ walk, index/   names for the catalog: all, or what changed (layout/: where metadata lies)
                   ├─ restore/       into a directory, an archive, a running guest (``targets`` is the port)
                   └─ fuse/          as a read-only directory

Read first: ``ports.py``, then ``session.py`` and ``choose.py``. ``volumes/`` knows what a volume says of itself; ``keys.py``
opens encrypted ones; ``pool.py`` keeps sessions open between two looks. SECURITY.md: from what hostile images are kept.
"""
