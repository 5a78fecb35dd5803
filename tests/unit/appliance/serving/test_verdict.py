"""What is said of a job run by what became of its tasks."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from appliance.serving.phases import verdict
from catalog.jobs.policy import Policy
from catalog.jobs.values import Cause, JobRun, JobRunState, Task, TaskKind, TaskState
from proxy.model import Reason, ReasonCode

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
RUN = JobRun("r", "j", "nightly", Policy(), Cause.SCHEDULE, NOW, JobRunState.RUNNING, NOW)
DONE = Task("t", "r", TaskKind.BACKUP, TaskState.DONE)


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([TaskState.DONE], JobRunState.DONE),
        ([TaskState.DONE, TaskState.STOPPED], JobRunState.STOPPED),
        ([TaskState.STOPPED, TaskState.FAILED, TaskState.DONE], JobRunState.FAILED),
        ([TaskState.DONE, TaskState.WAITING], JobRunState.STOPPED),
    ],
)
def test_the_gravest_end_of_a_task_counts(states: list[TaskState], said: JobRunState) -> None:
    assert verdict([replace(DONE, state=state) for state in states], RUN) is said


def test_a_problem_of_a_task_that_is_done_needs_attention() -> None:
    assert verdict([replace(DONE, problems=("its files are not recorded",))], RUN) is JobRunState.ATTENTION


@pytest.mark.parametrize("code", [ReasonCode.HOSTS_SILENT, ReasonCode.NOTHING_SELECTED])
def test_machines_that_nobody_could_look_for_need_attention(code: ReasonCode) -> None:
    assert verdict([DONE], replace(RUN, reasons=(Reason(code),))) is JobRunState.ATTENTION
    assert verdict([], replace(RUN, reasons=(Reason(code),))) is JobRunState.ATTENTION


def test_what_a_person_stopped_is_stopped_though_all_that_had_begun_is_done() -> None:
    assert verdict([DONE], replace(RUN, stop_at=NOW)) is JobRunState.STOPPED
