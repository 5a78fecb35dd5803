"""What a person should look at after a job run, gravest first: the same cause once, with all machines that it concerns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.telling.kinds import Gravity
from appliance.telling.text import counted, names, one_line
from catalog.jobs.values import JobRun, JobRunState, TaskKind, TaskState
from proxy.model import Reason, ReasonCode

if TYPE_CHECKING:
    from appliance.telling.report import Item

_Code = ReasonCode

NOTEWORTHY = {
    _Code.TRACKING_LIED: "the change tracking left changes out, so that everything was read",
    _Code.QUIESCED_BUT_DIRTY: "the guest said that it was quiesced, its file systems say otherwise",
    _Code.PARENT_DAMAGED: "the restore point before is damaged, so that everything was read",
    _Code.QUIESCED_HOOK_FAILED: "a program in the guest that prepares for backups failed",
    _Code.QUIESCE_FAILED: "the guest could not be quiesced",
    _Code.QUIESCE_TIMEOUT: "the guest did not get quiet in time",
    _Code.QUIESCE_NO_AGENT: "no agent in the guest: as if the power had failed",
    _Code.TRANSPORT_FALLBACK: "not read the preferred way",
    _Code.TRACKING_LOST: "the change tracking was lost, so that everything was read",
    _Code.TRACKING_INCONSISTENT: "the change tracking was inconsistent, so that everything was read",
    _Code.SWEEP_INCOMPLETE: "something was left behind on its host",
    _Code.DISK_UNSUPPORTED: "a disk is in no restore point: its format is not supported",
    _Code.DISK_INDEPENDENT: "a disk is in no restore point: snapshots leave it out",
    _Code.DISK_PASSTHROUGH: "a disk is in no restore point: it is passed through to the guest",
    _Code.DISK_SHARED: "a disk is in no restore point: machines share it",
}
"""Codes of decisions that somebody may want to change, in the order of their weight."""


@dataclass(frozen=True, slots=True)
class Attention:
    """``what``: in one line; ``machines``: names of those concerned (empty: the run as a whole); ``detail``: as the first
    of them said it, may be empty."""

    gravity: Gravity
    what: str
    machines: tuple[str, ...] = ()
    detail: str = ""

    def line(self) -> str:
        """For messages."""
        who = f" ({names(self.machines)})" if self.machines else ""
        detail = f": {one_line(self.detail)}" if self.detail else ""
        return f"{one_line(self.what)}{who}{detail}"


def attention(run: JobRun, items: Sequence["Item"]) -> tuple[Attention, ...]:
    """Each cause once."""
    found = [*_of_run(run), *_failed(items), *_stopped(items), *_problems(items), *_decisions(items)]
    return tuple(sorted(found, key=lambda a: a.gravity))


def _of_run(run: JobRun) -> Iterator[Attention]:
    gravity = Gravity.ERROR if run.state is JobRunState.FAILED else Gravity.WARNING
    if run.state not in {JobRunState.DONE, JobRunState.RUNNING}:
        yield from (Attention(gravity, reason.code.value, detail=reason.detail) for reason in run.reasons)
    yield from (Attention(Gravity.WARNING, note) for note in run.notes)


def _failed(items: Sequence["Item"]) -> Iterator[Attention]:
    groups: dict[tuple[TaskKind, str], list[Item]] = {}
    for item in items:
        if item.task.state is TaskState.FAILED:
            groups.setdefault((item.task.kind, item.task.error or "error"), []).append(item)
    for (kind, code), group in sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        who = counted(len(group), "machine") if kind is TaskKind.BACKUP else str(kind)
        yield Attention(Gravity.ERROR, f"{who} failed, {code}", tuple(i.name for i in group), group[0].task.message)


def _stopped(items: Sequence["Item"]) -> Iterator[Attention]:
    groups: dict[Reason | None, list[Item]] = {}
    for item in items:
        if item.task.state is TaskState.STOPPED:
            groups.setdefault(item.task.reasons[-1] if item.task.reasons else None, []).append(item)
    for reason, group in groups.items():
        why = f", {reason.code}" if reason is not None else ""
        yield Attention(
            Gravity.WARNING,
            f"{counted(len(group), 'task')} stopped before the end{why}",
            tuple(item.name for item in group),
            reason.detail if reason is not None else group[0].task.message,
        )


def _problems(items: Sequence["Item"]) -> Iterator[Attention]:
    groups: dict[str, list[str]] = {}
    for item in items:
        for problem in item.task.problems:
            groups.setdefault(problem, []).append(item.name)
    yield from (Attention(Gravity.WARNING, problem, tuple(who)) for problem, who in groups.items())


def _decisions(items: Sequence["Item"]) -> Iterator[Attention]:
    groups: dict[ReasonCode, dict[str, str]] = {}
    for item in items:
        for reason in item.reasons:
            if reason.code in NOTEWORTHY:
                groups.setdefault(reason.code, {}).setdefault(item.name, reason.detail)
    for code, words in NOTEWORTHY.items():
        if code in groups:
            concerned = groups[code]
            yield Attention(Gravity.INFO, f"{words} ({code})", tuple(concerned), next(iter(concerned.values())))
