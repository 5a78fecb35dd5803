"""Collection: what no restore point needs goes, beside running backups, in two phases.

::

    call 1   look at all restore points -> rewrite packs that hold little -> doom what is not needed
    call 2   wait until nobody is left who may count on the doomed -> look again -> delete, except what is needed again
             (each call does both: the second half for dooms of calls before, the first half anew)

Why no chunk can be lost
------------------------

1. *Writers.* A writer takes a lease, then lists dooms, and refers to no doomed pack. So only a writer whose lease began before
   a doom may refer to what it dooms, and nothing is deleted before all of these have given their leases back, with
   their manifests put, or have lost them.
2. *Collectors.* A doomed pack is never undoomed, and a chunk that is needed counts as safe only where nobody has doomed
   the pack. Suppose that all copies of a needed chunk were deleted; take the one whose pack was doomed last. When it was
   looked at again, after its doom, all others were doomed or gone, so it was needed, and was not deleted. That
   holds for any number of collectors, whatever they do at the same time, because dooms are listed before packs: of a
   doom that is done with by then, the packs are gone too.
3. *What is needed again* of a doomed pack is copied into a new one; the next look finds it there.
4. *Deletion by people* puts a tombstone first and may take it back a moment later; one younger than ``YOUNG`` whose
   manifest is still there does not count.
5. Nothing is deleted while a manifest, an index or a doom cannot be read.

Clocks and listings
-------------------

Only ages by the store's own clock are used, and only compared with each other; clocks of proxies play no part. If the store's
clock steps by less than ``EXPIRY``, ages are wrong by that much for what was put before: a doom may come due so much
earlier than ``GRACE``, and a lease may look younger than a doom that it is older than only if it was put on the other side of
the step; keep the clock of a file server disciplined (slewed), as every file server's is. After a larger step forward all
leases look expired: whoever acts on that deletes them first, and holders ask for theirs (``Lease.confirm``) before and
after they put a manifest, and lose the run rather than a chunk.

*S3:* listings and reads see every finished put and delete; ages have whole seconds, hence ``SKEW``. *Local file systems:*
likewise, to the microsecond. *NFS:* a client may show a directory as it was up to ``acdirmax`` (60 s) ago: a collector may miss
a lease, a doom or a manifest that was put less than ``SETTLE`` ago, and a writer a doom. Therefore a doom also waits for
leases that began up to 2 x ``SETTLE`` after it, is not looked at before ``GRACE``, and the collector pauses for ``SETTLE``
between "they are gone" and the look at manifests. Stores that promise less (no read after write, listings that lag for
minutes) are not supported.

Killed at any moment, a collector leaves dooms, copies that nobody refers to yet, and a lease that expires: the next call,
anywhere, goes on. Read on: ``needed.py`` and ``marks.py`` (the look), ``condemn.py`` and ``compact.py`` (first phase),
``sweep.py`` (second phase).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from proxy.errors import CollectorBusy
from proxy.repository.collection.collected import CollectReport, Tally, Waiting
from proxy.repository.collection.condemn import Condemner
from proxy.repository.collection.needed import Needed, Survey
from proxy.repository.collection.sweep import SETTLE, Sweeper
from proxy.repository.leases import COLLECT, Leases
from proxy.repository.repository import Repository

# How old a doom must be. Longer than two stale listings of NFS and any step of a disciplined clock; deleted space comes back at
# the next call anyway, which is mostly the next night.
GRACE = 15 * 60.0

# What is not needed yet may be of a run that goes on: dooming it loses nothing, but makes that run fail, or its chunks be
# copied. No shorter than runs are long; leases tell of longer ones.
YOUNG = 24 * 3600.0

# To win 3 bytes, 7 are read and written. Lower moves more for less; higher leaves more dead space: up to 30 % of a pack, and on
# average some half of that.
THRESHOLD = 0.3

# How often a call with patience looks whether its dooms may be carried out.
_POLL = 5.0


def collect(
    repository: Repository,
    *,
    leases: Leases | None = None,
    dry_run: bool = False,
    threshold: float = THRESHOLD,
    grace: float = GRACE,
    settle: float = SETTLE,
    young: float = YOUNG,
    patience: float = 0.0,
    limit: int | None = None,
    despite_missing: bool = False,
    courtesy: bool = True,
    progress: Callable[[int, int], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> CollectReport:
    """Doom what no restore point needs, and delete what was doomed before; may be killed and called again at any time.

    ``dry_run``: change nothing, tell what would happen. ``threshold``: dead share above which a pack is rewritten, 1.0 for
    never. ``grace``, ``settle``, ``young``: seconds, see the constants; ``young`` 0 spares not even what runs that go on have
    just put. ``patience``: seconds that this call may wait for its own dooms, so that one call does all. ``limit``: bytes
    to move at most (about). ``despite_missing``: go on although chunks are lost for good. ``courtesy``: raise
    ``CollectorBusy`` while another collector works. ``progress``: told how many machines and restore points were looked at.
    ``pause``: how to wait.

    Raises ``FormatError`` or ``IntegrityError`` if a manifest, an index or a doom cannot be read; nothing is deleted then.
    """
    leases = leases or repository.leases
    work = _Work(
        repository,
        Tally(dry_run),
        Sweeper(repository, leases, grace=grace, settle=settle),
        Condemner(repository, leases, young=young),
        Survey(repository, young, progress),
        despite_missing=despite_missing,
        settle=settle,
        pause=pause,
    )
    if dry_run:
        work.once(threshold, limit)
        return work.tally.report()
    if courtesy:
        _give_way(leases)
    with leases.held(COLLECT):
        work.sweeper.expire(work.tally)
        work.once(threshold, limit)
        work.see_through(patience)
    return work.tally.report()


def _give_way(leases: Leases) -> None:
    """One collector at a time saves work. One that missed two renewals is dead, and keeps nobody from collecting."""
    for lease in leases.living():
        if lease.kind == COLLECT and lease.quiet < 2.5 * leases.renew:
            raise CollectorBusy(str(lease))


@dataclass(frozen=True, slots=True)
class _Work:
    """The steps of one call."""

    repository: Repository
    tally: Tally
    sweeper: Sweeper
    condemner: Condemner
    survey: Survey
    despite_missing: bool
    settle: float
    pause: Callable[[float], None]

    def once(self, threshold: float, limit: int | None) -> None:
        """Carry out what was doomed before, and doom anew, by one look."""
        ready = self.sweeper.ready(self.tally)
        needed = self._look(ready)
        if needed is None:
            return
        self.sweeper.sweep(ready, needed, self.tally)
        self.condemner.compact(needed, threshold, limit, self.tally)
        self.condemner.doom(needed, self.tally)
        self.sweeper.clean(needed, self.tally)

    def see_through(self, patience: float) -> None:
        """Carry out the call's own dooms, if they may be, or may be soon enough."""
        made = self.condemner.made
        while made:
            ready = [name for name in self.sweeper.ready(self.tally) if name in made]
            if len(ready) == len(made) or (ready and patience <= 0):
                needed = self._look(ready)
                if needed is not None:
                    self.sweeper.sweep(ready, needed, self.tally)
                return
            if patience <= 0:
                return
            self.pause(min(_POLL, patience))
            patience -= _POLL

    def _look(self, ready: list[str]) -> Needed | None:
        """``None``: chunks are missing, so nothing shall be deleted."""
        if ready and not self.tally.dry_run:
            self.pause(self.settle)
        needed = self.survey.run()
        if needed.marks.missing:
            # Before anything is called lost: is it only lost from the local cache?
            self.repository.lookup.rebuild()
            needed = self.survey.run()
        self.tally.points, self.tally.missing = needed.points, needed.marks.missing
        if needed.marks.missing and not self.despite_missing:
            self.tally.waiting += [Waiting(name, "chunks are missing, and might be in what it dooms") for name in ready]
            return None
        return needed
