"""One snapshot is made, or removed, and what became of it is known: whatever was lost on the way is looked for by its mark."""

import time
from collections.abc import Callable
from typing import TypeVar

from proxy.hypervisor.vsphere import quiesce, tasks
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid
from proxy.hypervisor.vsphere.looking import Look, look, snapshot_task_runs
from proxy.hypervisor.vsphere.ownership import Found, Mark, description, snapshot_name
from proxy.hypervisor.vsphere.quiesce import Step

T = TypeVar("T")

# Tries for a refusal that often does not come twice ("An error occurred while taking a snapshot", a host that was busy).
ATTEMPTS = 3

# Between two looks whether a task of which we lost sight still runs.
LOOK_PAUSE = 1.0

# Nobody knows what became of the call.
UNKNOWN = frozenset({Refusal.OUTCOME_UNKNOWN, Refusal.UNREADABLE, Refusal.TASK_TIMEOUT})

_TRANSIENT = frozenset({Refusal.SNAPSHOT, Refusal.HOST, Refusal.TIMEOUT, Refusal.FILE_LOCKED, Refusal.OTHER}) | UNKNOWN


# A guest that refused, or did not answer in its time, is asked for less and not again.
_TRANSIENT_QUIESCED = frozenset({Refusal.SNAPSHOT, Refusal.HOST, Refusal.FILE_LOCKED, Refusal.OUTCOME_UNKNOWN})


class Maker:
    """Makes and removes on one vCenter. ``pause``: seconds between two tries."""

    def __init__(self, vcenter: Vcenter, *, pause: float) -> None:
        self._vcenter = vcenter
        self._pause = pause

    def make(self, seen: Look, mark: Mark, step: Step) -> Found:
        """The snapshot. Raises ``Refused``; then there is none."""
        settings = self._vcenter.settings
        limit = settings.snapshot_timeout + (settings.quiesce_timeout if step is not Step.NONE else 0.0)
        what = f"snapshot of {seen.name}"

        def create() -> str:
            for late in self._mine(look(self._vcenter, seen.machine), mark):
                self.remove(seen, late)  # of an earlier step, whose task ended after we stopped waiting for it
            task = seen.object.CreateSnapshotEx_Task(
                snapshot_name(mark.run, seen.name),
                description(mark),
                memory=False,
                quiesceSpec=quiesce.spec(step, seen.guest, settings.quiesce_timeout),
            )
            return moid(tasks.wait(self._vcenter, task, what, limit=limit))

        def made(error: Refused) -> str:
            for found in self._mine(self._settled(seen, limit), mark):
                if error.refusal in UNKNOWN and found.mark == mark:
                    return found.id
                self.remove(seen, found)  # the host says that it failed: nothing can be built on it
            return ""

        again = _TRANSIENT if step is Step.NONE else _TRANSIENT_QUIESCED
        wanted = self._try(create, made, again)
        found = next((f for f in self._mine(look(self._vcenter, seen.machine), mark) if f.id == wanted), None)
        if found is None:
            raise Refused(what, "the task ended well, and the machine has no such snapshot", Refusal.SNAPSHOT)
        if step is not Step.NONE and not found.quiesced:
            self.remove(seen, found)
            raise Refused(what, "it was made, and vSphere does not call it quiesced", Refusal.QUIESCE)
        return found

    def remove(self, seen: Look, found: Found) -> None:
        """It is gone when this returns; not necessarily consolidated. Raises ``Refused``."""
        limit = self._vcenter.settings.consolidate_timeout

        def remove() -> bool:
            task = found.snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True)
            tasks.wait(self._vcenter, task, f"remove snapshot {found.id} of {seen.name}", limit=limit)
            return True

        def gone(error: Refused) -> bool:
            if error.refusal is Refusal.TASK_TIMEOUT:
                return False  # it goes on; waiting twice as long helps nobody
            now = self._settled(seen, limit) if error.refusal in UNKNOWN else look(self._vcenter, seen.machine)
            return all(other.id != found.id for other in now.snapshots)

        self._try(remove, gone, _TRANSIENT - {Refusal.TASK_TIMEOUT})

    def consolidate(self, seen: Look) -> None:
        """Merge what removed snapshots left in the machine's chains. Raises ``Refused``."""
        limit = self._vcenter.settings.consolidate_timeout

        def consolidate() -> bool:
            tasks.wait(self._vcenter, seen.object.ConsolidateVMDisks_Task(), f"consolidate {seen.name}", limit=limit)
            return True

        def done(_: Refused) -> bool:
            return not look(self._vcenter, seen.machine).consolidation_needed

        self._try(consolidate, done, _TRANSIENT - {Refusal.TASK_TIMEOUT})

    def _try(self, call: Callable[[], T], done: Callable[[Refused], T], again: frozenset[Refusal]) -> T:
        """Until it is done, or refused for good. A machine that another task holds is waited for. ``done``: what became of a
        call that was refused, something false if nothing did."""
        deadline, attempt = time.monotonic() + self._vcenter.settings.snapshot_timeout, 0
        while True:
            attempt += 1
            try:
                return call()
            except Refused as error:
                if became := done(error):
                    return became
                busy = error.refusal is Refusal.BUSY and time.monotonic() < deadline
                if not busy and (error.refusal not in again or attempt >= ATTEMPTS):
                    raise
                time.sleep(self._pause)

    def _settled(self, seen: Look, limit: float) -> Look:
        """The machine once nobody works on its snapshots any more. Raises ``Refused`` (``TASK_TIMEOUT``)."""
        deadline = time.monotonic() + limit
        while True:
            now = look(self._vcenter, seen.machine)
            if not snapshot_task_runs(self._vcenter, now):
                return now
            if time.monotonic() >= deadline:
                raise Refused(f"snapshot of {seen.name}", f"a task still runs after {limit:g} s", Refusal.TASK_TIMEOUT)
            time.sleep(LOOK_PAUSE)

    def _mine(self, now: Look, mark: Mark) -> list[Found]:
        return [found for found in now.snapshots if found.mark.run == mark.run and found.mark.by == mark.by]
