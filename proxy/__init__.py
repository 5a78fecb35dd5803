"""The data plane of Lanfree: snapshot, transport, repository. Knows no web, no SQL, no workflow engine.

Read first: ``backup.py`` and ``restore.py`` (the use cases as their steps), then ``ports.py`` (where the outside is
plugged in), then ``model.py``. Ten words, each with one meaning:

snapshot        the *hypervisor's* snapshot, never a backup
restore point   one machine at one time in the repository; exists if and only if its manifest exists
image           one disk in a restore point: a full index of chunks, of which only new ones were written
chunk           a fixed-size piece of a virtual disk, stored once under its keyed digest
extent          a run of guest bytes, DATA or ZERO
transport       how a disk's bytes reach the proxy: ``san``, ``lan`` or ``raw``
change id       opaque mark for "changed since"
quiesce         to bring applications and file systems of a guest to rest: application, filesystem, crash consistent
run             one execution of a job for one machine; its id is in the name of everything it makes
repository      where restore points live (never an SQL module)
"""
