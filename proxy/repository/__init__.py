"""The image repository: restore points as full indexes of content-addressed chunks in packs. FORMAT.md gives the bytes.

::

    write(offset, data)                                            seal                     commit
      chunk -> zero? -> id -> as before? -> known? -> zstd -> pack --> packs, index put --> manifest put
               (free)         (parent's)    (lookup)                                        = the restore point exists

Read first: ``repository.py`` (create, open, seal, delete), then ``writer.py`` and ``reader.py`` (one image), ``packs.py``,
``index.py``, ``lookup.py``; ``format.py`` has the layouts, ``verify.py`` and ``report.py`` look at the whole.
Stores: ``posix.py`` (directory), ``memory.py`` (shipped fake).

Who may do what at the same time (any number of threads, processes and proxies on one repository)
=========================================================================================================

==========  ===============  ===============  ===============  ===============  =========================================
beside      back up          restore, mount   verify           delete           because
==========  ===============  ===============  ===============  ===============  =========================================
back up     yes              yes              yes              yes              objects are immutable and only added; a
                                                                                chunk that two bring at once may be stored
                                                                                twice, a reference never dangles
restore,    yes              yes              yes              yes, goes on     an open image has its index mapped, and
mount                                         	                                packs are not removed by delete
verify      yes              yes              yes              yes              points that vanish are left out
delete      yes; an          yes              yes              one at a time    two proxies that delete the last two
            incremental of                                     (a lock in each  points of one machine at the same moment
            the deleted one                                    process)         could delete both: let one proxy do it
            goes on
==========  ===============  ===============  ===============  ===============  =========================================

There are no lock files, so a dead process keeps none. One run a machine at a time is the caller's to hold
(``MachineBusy``); if it is broken, both runs end as whole restore points.

Given-up runs: packs that they put stay, invisible, and serve the next run's deduplication. They are not deleted by the run
that put them, although nothing refers to them: another run, in any process, may have found a chunk there a moment ago.
"""

from proxy.repository.format import DEFAULT_CHUNK, DEFAULT_PACK
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
    "MemoryStore",
    "PosixStore",
    "Repository",
    "RepositoryImageReader",
    "RepositoryImageWriter",
    "Statistics",
    "Unreferenced",
    "VerifyProgress",
    "create",
    "open",
    "statistics",
    "unreferenced",
    "verify",
]
