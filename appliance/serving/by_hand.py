"""What a person begins by hand, as schedules see it: it holds its keys, and waits for no limit but the machine's own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.selecting import facts_of
from appliance.wiring import Services
from catalog.jobs import limits
from catalog.jobs.values import TaskState
from proxy.backup import BackupRequest
from proxy.errors import LanfreeError, MachineBusy

log = logging.getLogger("lanfree.by_hand")


@contextmanager
def holding(services: Services, proxy: str, request: BackupRequest) -> Iterator[None]:
    """While inside, no task of a job begins with the same machine, and those of its host and places count it. Raises
    ``MachineBusy``. Where nothing can be written down the backup is made all the same: it needs nobody's leave."""
    held = _hold(services, proxy, request)
    state, error = TaskState.FAILED, None
    try:
        yield
        state = TaskState.DONE
    except LanfreeError as caught:
        error = caught
        raise
    finally:
        if held:
            _let_go(services, request, state, error)


def _hold(services: Services, proxy: str, request: BackupRequest) -> bool:
    try:
        machine = services.hypervisor.machine(request.machine)
        where = facts_of(services).of(machine)
        keys = [limits.key(limits.HOST, where.host), *(limits.key(limits.PLACE, place) for place in where.places)]
        keys.append(limits.key(limits.REPOSITORY, services.repository.settings.id.hex()))
        now = services.clock.now()
        with services.jobs.transaction() as unit:
            unit.tasks.hold(request.run, machine.id, machine.name, now, proxy=proxy, keys=keys, host=where.host)
    except MachineBusy:
        raise
    except LanfreeError as error:
        log.warning("not counted among what runs: %s", error.message, extra={"run": request.run})
        return False
    return True


def _let_go(services: Services, request: BackupRequest, state: TaskState, error: LanfreeError | None) -> None:
    code, message = (error.code, error.message) if error is not None else (None, "")
    try:
        with services.jobs.transaction() as unit:
            task = unit.tasks.by_run(request.run)
            if task is not None:
                unit.tasks.end(task.id, state, services.clock.now(), error=code, message=message)
    except LanfreeError as refused:  # found as a task without a process, once this one has ended
        log.warning("not written down that it ended: %s", refused.message, extra={"run": request.run})
