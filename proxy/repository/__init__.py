"""The image repository: restore points as full indexes of content-addressed chunks in packs. FORMAT.md gives the bytes.

::

    write(offset, data)                                            seal                     commit
      chunk -> zero? -> id -> as before? -> known? -> zstd -> pack --> packs, index put --> manifest put
               (free)         (parent's)    (lookup)                                        = the restore point exists

Read first: ``repository.py`` (create, open, seal, delete), then ``writer.py`` and ``reader.py`` (one image), ``packs.py``,
``index.py``, ``lookup.py``; ``format.py`` has the layouts, ``verify.py`` and ``report.py`` look at the whole,
``damaged.py`` remembers bad places.
Stores: ``posix.py`` (directory), ``memory.py`` (shipped fake).

Who may do what at the same time (any number of threads, processes and proxies on one repository)
-------------------------------------------------------------------------------------------------

================  ==========  ================  =======  ===============
beside            back up     restore or mount  verify   delete
================  ==========  ================  =======  ===============
back up           yes (1)     yes (2)           yes (3)  yes (4)
restore or mount  yes (2)     yes               yes      yes (5)
verify            yes (3)     yes               yes      yes (6)
delete            yes (4)     yes (5)           yes (6)  one a time (7)
================  ==========  ================  =======  ===============

1. Objects are immutable and only added. Writers of one process share chunks at once, those of several from the start of each
   image on; a chunk that two bring in the same moment is stored twice, a reference never dangles.
2. A restore point is visible when its manifest is there, and then all that it needs is durable.
3. Restore points that are sealed after verification began are not looked at.
4. The parent may be deleted while an incremental goes on: its references were copied when the image was begun.
5. An open image has its index mapped and goes on; packs are not removed by delete.
6. Restore points that vanish meanwhile are left out.
7. Each process has a lock, so that the last two points of a machine cannot both go. Between proxies there is none in
   version 1: let one proxy delete.

There are no lock files, so a dead process keeps none. One run a machine at a time is the caller's to hold
(``MachineBusy``); if it is broken, both runs end as whole restore points.

Damage: what verification or a reader finds bad is recorded (any number may, at any time), is not deduplicated against any
more, and makes the next incremental on top of it a full backup. That stores anew what the disk still has; older points find
it there by its id. A backup that goes on while the damage is found may still refer to it: the one after it heals.

Given-up runs: packs that they put stay, invisible, and serve the next run's deduplication. They are not deleted by the run
that put them, although nothing refers to them: another run, in any process, may have found a chunk there a moment ago.
"""

from proxy.repository.format import DEFAULT_CHUNK, DEFAULT_PACK
from proxy.repository.keys import KeyFile, Passphrase, Secret
from proxy.repository.memory import MemoryStore
from proxy.repository.posix import PosixStore
from proxy.repository.reader import RepositoryImageReader
from proxy.repository.report import Statistics, Unreferenced, statistics, unreferenced
from proxy.repository.repository import Repository, create, open  # noqa: A004
from proxy.repository.verify import Damage, VerifyProgress, verify
from proxy.repository.writer import RepositoryImageWriter

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
