"""A job run and its tasks in words, for the command line, the API and reports. Pure."""

from collections.abc import Collection

from catalog.jobs.values import JobRun, Task, TaskState
from proxy.model import Reason, ReasonCode

OWN = frozenset({ReasonCode.MADE_BY_JOB, ReasonCode.MADE_BY_JOB_ID})
"""Reasons that restore points need and whoever looks at the run knows."""


def named(task: Task) -> str:
    """Its machine; in brackets what it does, if it has none."""
    return task.machine_name or f"({' '.join(part for part in (task.kind.value, task.target) if part)})"


def reason_text(reason: Reason) -> str:
    """``code: detail``."""
    return f"{reason.code.value}: {reason.detail}" if reason.detail else reason.code.value


def of_run(run: JobRun) -> list[str]:
    """Reasons and notes of a run."""
    return [*(reason_text(reason) for reason in run.reasons), *run.notes]


def reasons_of(task: Task) -> list[Reason]:
    """Without those that say whose job made it."""
    return [reason for reason in task.reasons if reason.code not in OWN]


def limits_of(task: Task, full: Collection[str]) -> list[str]:
    """Full limits that a waiting task is held up by. ``full``: all that are."""
    return [key for key in task.keys if key in full] if task.state is TaskState.WAITING else []
