"""Which errors are worth another attempt, and when."""

from datetime import UTC, datetime, timedelta

import pytest

from appliance.serving.performing import retry_at
from catalog.jobs.policy import Retries, RetryOn
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.errors import (
    ConfigurationError,
    DeviceBusy,
    IntegrityError,
    LanfreeError,
    MachineBusy,
    QuiesceFailed,
    ReadFailed,
    RepositoryFull,
)

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def task(attempt: int = 1, deadline: datetime | None = None) -> Task:
    return Task("t", "j", TaskKind.BACKUP, TaskState.RUNNING, attempt=attempt, deadline=deadline)


@pytest.mark.parametrize(
    ("error", "branch"),
    [
        (MachineBusy("m", "somebody"), RetryOn.TRY_AGAIN),
        (DeviceBusy("lun", "BUSY"), RetryOn.TRY_AGAIN),
        (ReadFailed("lun", 0, 1, "cable"), RetryOn.TRANSPORT),
        (QuiesceFailed("m", "no agent"), RetryOn.RUN_FAILED),
        (RepositoryFull("/backup"), RetryOn.STOP_ALL),
    ],
)
def test_each_branch_of_the_error_tree_is_tried_again_only_if_the_policy_names_it(
    error: LanfreeError, branch: RetryOn
) -> None:
    others = tuple(each for each in RetryOn if each is not branch)
    assert retry_at(Retries(wait=60, on=(branch,)), task(), error, NOW) == NOW + timedelta(seconds=60)
    assert retry_at(Retries(wait=60, on=others), task(), error, NOW) is None


@pytest.mark.parametrize(
    "error", [ConfigurationError("x", "y"), IntegrityError("x", "y"), LanfreeError("z"), ValueError("a fault of ours")]
)
def test_what_only_a_person_can_decide_is_never_tried_again(error: Exception) -> None:
    assert retry_at(Retries(), task(), error, NOW) is None


def test_waits_double_and_attempts_end() -> None:
    retries = Retries(attempts=4, wait=10)
    waits = [retry_at(retries, task(attempt), QuiesceFailed("m", "x"), NOW) for attempt in (1, 2, 3, 4)]
    assert waits == [NOW + timedelta(seconds=10), NOW + timedelta(seconds=20), NOW + timedelta(seconds=40), None]


def test_an_attempt_that_would_begin_after_the_window_is_none() -> None:
    retries = Retries(wait=600)
    error = RepositoryFull("/backup")
    assert retry_at(retries, task(deadline=NOW + timedelta(seconds=601)), error, NOW) is not None
    assert retry_at(retries, task(deadline=NOW + timedelta(seconds=600)), error, NOW) is None
    assert retry_at(retries, task(deadline=NOW + timedelta(seconds=601)), error, NOW, 900) is None


def test_what_is_closed_is_waited_for() -> None:
    assert retry_at(Retries(wait=0), task(), RepositoryFull("/backup"), NOW, 900) == NOW + timedelta(seconds=900)
