"""Waiting for vCenter's tasks: with a limit, with cancelling, through a restart of vCenter.

A task is asked for its state now and then. vSphere could also push changes, but that holds one connection open for every
waiting run and does not survive a restart; the question is one small round trip.
"""

import time
from collections.abc import Callable
from typing import Any

from proxy.errors import Cancelled, LanfreeError
from proxy.hypervisor.vsphere.collector import read_one
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid, refused

# Seconds between two questions: short tasks end in a few hundred milliseconds, long ones in minutes.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

# After a task was asked to end it may go on for so long before it is left to itself: a snapshot that is being quiesced
# ends only when the guest's tools let go.
CANCEL_GRACE = 60.0


def never() -> bool:
    """For who cannot be asked to stop."""
    return False


def wait(
    vcenter: Vcenter,
    task: Any,
    what: str,
    *,
    limit: float,
    cancelled: Callable[[], bool] = never,
    progress: Callable[[int], None] | None = None,
) -> Any:
    """The task's result. ``what``: for people; ``limit``: seconds; ``progress``: is given percents.

    Raises ``Refused`` with the class of the task's own error; ``TASK_TIMEOUT`` after ``limit`` (the task was asked to end);
    ``OUTCOME_UNKNOWN`` when vCenter does not know the task any more; ``Cancelled``. A task that reaches its end although it
    was asked to stop counts as done: its result is returned.
    """
    deadline, pause = time.monotonic() + limit, FIRST_PAUSE
    ending: LanfreeError | None = None
    while True:
        info = _info(vcenter, task, what)
        if info.state == "success":
            return info.result
        if info.state == "error":
            error = refused(what, info.error)
            raise ending if ending is not None and error.refusal is Refusal.CANCELED else error
        if progress is not None and isinstance(info.progress, int):
            progress(info.progress)
        late = time.monotonic() >= deadline
        if ending is not None and late:
            raise ending
        if ending is None and (late or cancelled()):
            ending = Cancelled(what) if cancelled() else _late(what, task, limit)
            deadline, pause = time.monotonic() + _ask_to_end(task, info), FIRST_PAUSE
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _ask_to_end(task: Any, info: Any) -> float:
    """Seconds that it gets to end in; none for a task that cannot be asked."""
    if not info.cancelable:
        return 0.0
    try:
        task.CancelTask()
    except Refused:
        return 0.0  # it ended this moment, or does not let itself be cancelled after all: the next look tells
    return CANCEL_GRACE


def _late(what: str, task: Any, limit: float) -> Refused:
    return Refused(what, f"task {moid(task)} did not end within {limit:g} s", Refusal.TASK_TIMEOUT)


def _info(vcenter: Vcenter, task: Any, what: str) -> Any:
    try:
        return read_one(vcenter, task, "info").values["info"]
    except Refused as error:
        if error.refusal is not Refusal.GONE:
            raise
        why = f"vCenter does not know task {moid(task)} any more, it was restarted"
        raise Refused(what, why, Refusal.OUTCOME_UNKNOWN) from None
