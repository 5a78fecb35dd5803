"""Exit codes of work that others do: job runs, on this machine's proxies or at another appliance."""

from collections.abc import Mapping

from appliance.cli.output import ATTENTION, exit_code
from catalog.jobs.values import JobRunState
from proxy.errors import Cancelled, RunFailed

STOPPED = exit_code(Cancelled(""))
"""Somebody, or a window, ended it; or nobody can say how it ends."""

_ENDS: Mapping[str, int] = {
    JobRunState.DONE: 0,
    JobRunState.ATTENTION: ATTENTION,
    JobRunState.FAILED: exit_code(RunFailed("")),
    JobRunState.STOPPED: STOPPED,
    JobRunState.SKIPPED: ATTENTION,
}


def of_run(state: str) -> int:
    """Of a job run that was waited for."""
    return _ENDS.get(state, STOPPED)
