"""What a person begins by hand, as schedules see it: it holds its keys, and waits for no limit but the machine's own."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.selecting import facts_of, places_to_write, targets_of
from appliance.wiring import Services
from catalog.jobs import limits
from catalog.jobs.values import TaskKind, TaskState
from proxy.backup import BackupRequest
from proxy.errors import LanfreeError, MachineBusy
from proxy.model import MachineId, RunId
from proxy.restore import RestoreRequest

log = logging.getLogger("lanfree.by_hand")


@dataclass(frozen=True, slots=True)
class _Held:
    """What is written down. ``places``: datastores and LUNs; ``alone``: keys of what a restore alone
    works on."""

    kind: TaskKind
    machine: MachineId
    name: str
    host: str
    places: Sequence[str]
    alone: Sequence[str] = ()


@contextmanager
def holding(services: Services, proxy: str, request: BackupRequest) -> Iterator[None]:
    """While inside, no task of a job begins with the same machine, and those of its host and places count it. Raises
    ``MachineBusy``. Where nothing can be written down the backup is made all the same: it needs nobody's leave."""

    def found() -> _Held:
        machine = services.hypervisor.machine(request.machine)
        where = facts_of(services).of(machine)
        return _Held(TaskKind.BACKUP, machine.id, machine.name, where.host, where.places)

    with _holding(services, proxy, request.run, found):
        yield


@contextmanager
def holding_for_restore(services: Services, proxy: str, request: RestoreRequest) -> Iterator[None]:
    """As ``holding``, for the machine that comes back and the places that are written: nobody backs up what is half there."""

    def found() -> _Held:
        point = services.repository.point(request.point)
        places = places_to_write(services, request)
        alone = [limits.key(limits.TARGET, name) for name in targets_of(request)]
        alone += [limits.key(limits.MACHINE, request.attach)] if request.attach else []
        return _Held(TaskKind.RESTORE, point.machine, point.machine_name, request.machine.host, places, alone)

    with _holding(services, proxy, request.run, found):
        yield


@contextmanager
def _holding(services: Services, proxy: str, run: RunId, found: Callable[[], _Held]) -> Iterator[None]:
    held = _hold(services, proxy, run, found)
    state, error = TaskState.FAILED, None
    try:
        yield
        state = TaskState.DONE
    except LanfreeError as caught:
        error = caught
        raise
    finally:
        if held:
            _let_go(services, run, state, error)


def _hold(services: Services, proxy: str, run: RunId, found: Callable[[], _Held]) -> bool:
    try:
        one = found()
        keys = [limits.key(limits.HOST, one.host), *(limits.key(limits.PLACE, place) for place in one.places)]
        keys += [limits.key(limits.REPOSITORY, services.repository.settings.id.hex()), *one.alone]
        now = services.clock.now()
        with services.jobs.transaction() as unit:
            unit.tasks.hold(run, one.machine, one.name, now, proxy=proxy, keys=keys, host=one.host, kind=one.kind)
    except MachineBusy:
        raise
    except LanfreeError as error:
        log.warning("not counted among what runs: %s", error.message, extra={"run": run})
        return False
    return True


def _let_go(services: Services, run: RunId, state: TaskState, error: LanfreeError | None) -> None:
    code, message = (error.code, error.message) if error is not None else (None, "")
    try:
        with services.jobs.transaction() as unit:
            task = unit.tasks.by_run(run)
            if task is not None:
                unit.tasks.end(task.id, state, services.clock.now(), error=code, message=message)
    except LanfreeError as refused:  # found as a task without a process, once this one has ended
        log.warning("not written down that it ended: %s", refused.message, extra={"run": run})
