"""What a person asked for, as a task carries it: parameters by kind, as JSON, with the ``version`` of their shape. What is
stored must stay readable: a key that changes its meaning needs another version."""

from contextlib import suppress
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.jobs.policy import Policy, Retries
from catalog.jobs.values import Task, TaskKind
from proxy.errors import ConfigurationError, LanfreeError, RestoreInterrupted
from proxy.model import QuiescePolicy
from proxy.restore import RestoreRequest

NEVER_AGAIN = frozenset({TaskKind.RESTORE, TaskKind.FILES})
"""Kinds that write to somebody else's disks or directories: what was checked before the first attempt need not hold any
more, so that none is made again by itself, and none is gone on with by another process (ADR 4)."""

_ONCE = Retries(attempts=1)

# A person waits for it: it is tried again soon or not at all.
_SOON = Retries(attempts=3, wait=20.0)


class Wish(BaseModel):
    """Base of all."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1


class BackupWish(Wish):
    """``quiesce``, ``index``: ``None`` as configured."""

    quiesce: QuiescePolicy | None = None
    index: bool | None = None


class RestoreWish(Wish):
    """``request.run`` is that of the attempt, whatever stands here. ``confirmed``: the digest of what the person was shown (see
    ``appliance.restoring``)."""

    request: RestoreRequest
    confirmed: str


class IndexWish(Wish):
    """None named: all whose files are not recorded."""

    points: tuple[str, ...] = ()


class VerifyWish(Wish):
    """See ``operations.Depth``. ``machines``: all points of these, by identity; all there are without either."""

    points: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    share: float = Field(1.0, gt=0, le=1)
    deep: bool = True


class PruneWish(Wish):
    """Which repository is the task's ``target``. ``dry_run``: only say what would go."""

    dry_run: bool = False


class RepairWish(Wish):
    """The ``[[copy_to]]`` with the copies is the task's ``target``. ``only``: this restore point alone."""

    only: str = ""


class AuditWish(Wish):
    """``publish``: let the witnesses note the newest restore points."""

    publish: bool = False


class RebuildWish(Wish):
    """``files``: record the files of all restore points, too."""

    files: bool = True


class CollectWish(Wish):
    """Which repository is the task's ``target``."""

    dry_run: bool = False


class CopyWish(Wish):
    """The second repository is the task's ``target``. ``pull``: from there to here."""

    pull: bool = False
    machines: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    newest: int | None = None
    since: datetime | None = None
    read_back: bool = False


W = TypeVar("W", bound=Wish)


def read(kind: type[W], task: Task) -> W:
    """The parameters of a task. Raises ``ConfigurationError`` for what another version asked for."""
    try:
        return kind.model_validate(dict(task.parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise ConfigurationError(
            f"task {task.id}",
            f"what was asked for cannot be read ({where}: {first['msg']})",
            hint="another version of Lanfree wrote it; ask again",
        ) from None


def policy_of(task: Task) -> Policy:
    """What it follows instead of a job's policy; the rest is as configured. Raises as ``read``."""
    if task.kind is not TaskKind.BACKUP:
        return Policy()
    wish = read(BackupWish, task)
    return Policy(quiesce=wish.quiesce, index=wish.index)


def retries_of(kind: TaskKind) -> Retries:
    """When another attempt is worth it."""
    return _ONCE if kind in NEVER_AGAIN else _SOON


def cut_off(task: Task) -> LanfreeError:
    """How one of ``NEVER_AGAIN`` ends whose process ended or was lost."""
    what = "files" if task.kind is TaskKind.FILES else "disks"
    places = [task.target or f"{what} of {task.machine_name}"]
    if task.kind is TaskKind.RESTORE:
        with suppress(ConfigurationError):  # what another version asked for ends, too
            places = [str(place) for place in read(RestoreWish, task).request.machine.disks.values()]
    return RestoreInterrupted(task.run, places)
