"""The image repository: restore points as full indexes of content-addressed chunks in packs. FORMAT.md gives the bytes.

::

    write(offset, data)                                                  seal                     commit
      chunk -> zero? -> id -> as before? -> known? -> zstd, seal -> pack --> packs, index put --> manifest put
               (free)         (parent's)    (lookup)                                              = the restore point exists

Read first: ``repository.py`` (create, open, seal), then ``writer.py`` and ``reader.py`` (one image), ``packs.py`` and
``index.py``; ``format.py`` has the layouts. Beside them:

- ``keys.py``, ``sealing.py``: who may open it, and what keeps storage from reading and forging;
- ``ledger.py``, ``manifest.py``, ``records.py``: which restore points there are; tombstones, holds, health;
- ``lookup.py`` (``runs.py``, ``packset.py``): which chunks there are, one by one; ``resolve.py``, ``relocate.py`` and what ends
  with ``arrays``: very many at once, with numpy; ``damaged.py``: which places are bad;
- ``leases.py``, ``claims.py``, ``dooms.py``: who is at work, and what is about to go; ``promise.py``: what must not go;
- ``stores/``: directory, S3, memory; ``collection/``: retention and collection; ``checking/``: verify, repair, audit, report;
- ``copy.py``: to another repository; ``rescue.py``: reads all this without us, and imports nothing of ours.

Who may do what at the same time (any number of threads, processes and proxies on one repository)
-------------------------------------------------------------------------------------------------

================  ==========  ================  =======  ===========  ===========  ==========
beside            back up     restore or mount  verify   delete       collect      copy to it
================  ==========  ================  =======  ===========  ===========  ==========
back up           yes (1)     yes (2)           yes (3)  yes (4)      yes (8)      yes (1)
restore or mount  yes (2)     yes               yes      yes (5)      yes (5)      yes (2)
verify            yes (3)     yes               yes      yes (6)      yes (9)      yes (3)
delete            yes (4)     yes (5)           yes (6)  yes (7)      yes (10)     yes (4)
collect           yes (8)     yes (5)           yes (9)  yes (10)     yes (11)     yes (8)
copy to it        yes (1)     yes (2)           yes (3)  yes (4)      yes (8)      yes (1)
================  ==========  ================  =======  ===========  ===========  ==========

Copying from it is a restore; audits and reports only read. The catalog is made again from it beside everything.

1. Objects are immutable and only added. Writers of one process share chunks at once, those of several from the start of each
   image on; a chunk that two bring in the same moment is stored twice, a reference never dangles.
2. A restore point is visible when its manifest is there, and then all that it needs is durable.
3. Restore points that are sealed after verification began are not looked at.
4. The parent may be deleted while an incremental goes on: its references were taken over when the image was begun, and the
   image's lease keeps what they lead to.
5. A deletion leaves indexes and packs to collection, which waits for readers that hold a lease (``Repository.reading``): they
   go on reading, and opening, the disks of a point that is deleted meanwhile. Without a lease a reader may end with
   ``IntegrityError`` when the point is deleted and collected under it.
6. Restore points that vanish meanwhile are left out.
7. Two proxies that delete a machine's last two points at once both see both tombstones, and both refuse. On NFS only if their
   deletions are a minute apart: before, one may not see the other's tombstone (``posix.py``), and both points go. Retention
   spares the newest good point, so one of the two is a person's.
8. A writer holds a lease from the beginning of each image to the manifest. What is doomed meanwhile is not deleted before the
   lease is given back, and is copied if the manifest needs it. What was doomed before is not deduplicated against. If the
   lease is lost (a proxy that was suspended for a day) or the images were made by another process, everything is looked at
   again before the manifest is put; the run fails if something is gone.
9. Chunks are found by their ids wherever they were moved to; packs that vanish while they are read are looked up anew.
10. A deletion counts for collection when its manifest is gone, or when its tombstone is a day old.
11. Any number, whatever they do; one gives way to another that is alive (``CollectorBusy``), to save work.

No lock that a dead process keeps: leases expire after a day by the store's own clock. One run a machine at a time is the
caller's to hold (``MachineBusy``); if it is broken, both runs end as whole restore points.

Damage: what verification or a reader finds bad is recorded (any number may, at any time), is not deduplicated against any
more, and makes the next incremental on top of it a full backup. That stores anew what the disk still has; older points find
it there by its id. A backup that goes on while the damage is found may still refer to it: the one after it heals.

Given-up runs: packs and indexes that they put stay, invisible, serve the next runs' deduplication, and are collected after a
day.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxy.repository.format import DEFAULT_CHUNK, DEFAULT_PACK
from proxy.repository.keys import KeyFile, Passphrase, Secret
from proxy.repository.reader import RepositoryImageReader
from proxy.repository.repository import Repository, create, open  # noqa: A004
from proxy.repository.stores.memory import MemoryStore
from proxy.repository.stores.posix import PosixStore
from proxy.repository.writer import RepositoryImageWriter

if TYPE_CHECKING:
    from proxy.repository.checking.report import Statistics, Unreferenced, statistics, unreferenced
    from proxy.repository.checking.verify import Damage, VerifyProgress, verify

_CHECKING = {
    "Damage": "verify",
    "Statistics": "report",
    "Unreferenced": "report",
    "VerifyProgress": "verify",
    "statistics": "report",
    "unreferenced": "report",
    "verify": "verify",
}
"""What neither backups nor restores need, and where it is: imported when it is asked for."""


if not TYPE_CHECKING:  # where names are checked, the imports above count

    def __getattr__(name: str) -> Any:
        if name not in _CHECKING:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.checking.{_CHECKING[name]}"), name)


__all__ = [
    "DEFAULT_CHUNK",
    "DEFAULT_PACK",
    "Damage",
    "KeyFile",
    "MemoryStore",
    "Passphrase",
    "PosixStore",
    "Repository",
    "RepositoryImageReader",
    "RepositoryImageWriter",
    "Secret",
    "Statistics",
    "Unreferenced",
    "VerifyProgress",
    "create",
    "open",
    "statistics",
    "unreferenced",
    "verify",
]
