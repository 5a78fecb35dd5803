"""Which snapshots are ours: those whose name and description both say so, made by this very installation. Pure.

A name alone would not do: somebody may call a snapshot ``lanfree-test``, and what is taken for ours is removed. So the
description carries a mark with run, machine and installation::

    lanfree-b-20261122-0300-web       name: at most 80 characters, which is vSphere's limit
    Made by Lanfree … [lanfree-snapshot run=b-20261122-0300 machine=<instance uuid> by=<installation> quiesce=vss]

A machine's files may be copied with its snapshots, so the mark counts only on the machine that it names.
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.errors import FormatError
from proxy.hypervisor.vsphere.faults import moid
from proxy.model import MachineId, RunId
from proxy.ports import StateStore

# vSphere refuses longer names of snapshots.
NAME_LIMIT = 80

PREFIX = "lanfree-"

_INSTALLATION = "installation"

_MARK = re.compile(
    r"\[lanfree-snapshot run=(?P<run>\S+) machine=(?P<machine>\S+) by=(?P<by>[0-9a-f]{32}) quiesce=(?P<quiesce>\w+)\]"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a snapshot's description says. ``by``: the installation that made it; ``quiesce``: what was asked of the guest."""

    run: RunId
    machine: MachineId
    by: str
    quiesce: str


@dataclass(frozen=True, slots=True)
class Found:
    """A snapshot of Lanfree's in a machine's tree. ``snapshot``: ``vim.vm.Snapshot``; ``quiesced``: vSphere's word for it."""

    mark: Mark
    snapshot: Any
    created_at: datetime
    quiesced: bool = False

    @property
    def id(self) -> str:
        """Managed object id."""
        return moid(self.snapshot)


def snapshot_name(run: RunId, machine_name: str) -> str:
    """As people see it in the snapshot manager."""
    return f"{PREFIX}{run}-{machine_name}"[:NAME_LIMIT]


def description(mark: Mark) -> str:
    """For people, and with the mark."""
    return (
        "Made by Lanfree while it backs this machine up, and removed by it afterwards. "
        f"[lanfree-snapshot run={mark.run} machine={mark.machine} by={mark.by} quiesce={mark.quiesce}]"
    )


def marked(name: str, text: str) -> Mark | None:
    """The mark of a snapshot with this name and description, ``None`` when it is none of Lanfree's."""
    found = _MARK.search(text or "")
    if found is None or not (name or "").startswith(f"{PREFIX}{found['run']}"[:NAME_LIMIT]):
        return None
    return Mark(found["run"], found["machine"], found["by"], found["quiesce"])


def tree(info: Any) -> Iterator[Any]:
    """Every ``vim.vm.SnapshotTree`` of a machine's ``snapshot`` property (``None``: it has none), parents first."""
    waiting = list(getattr(info, "rootSnapshotList", None) or ())
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(one.childSnapshotList or ())


def found_in(info: Any, machine: MachineId) -> list[Found]:
    """Lanfree's snapshots of a machine, whichever installation made them, oldest first."""
    found = []
    for one in tree(info):
        mark = marked(str(one.name or ""), str(one.description or ""))
        if mark is not None and mark.machine == machine:
            found.append(Found(mark, one.snapshot, one.createTime, bool(one.quiesced)))
    return sorted(found, key=lambda each: each.created_at)


def above(info: Any, snapshot: str) -> bool:
    """Whether the machine goes on from this snapshot: it is the current one or an ancestor of it. By managed object id."""
    current = moid(getattr(info, "currentSnapshot", None))
    parents = {moid(child.snapshot): moid(one.snapshot) for one in tree(info) for child in one.childSnapshotList or ()}
    seen: set[str] = set()
    while current and current not in seen:
        if current == snapshot:
            return True
        seen.add(current)
        current = parents.get(current, "")
    return False


def installation(state: StateStore) -> str:
    """This installation's name for itself, made once: 32 hexadecimal digits in a record of its state. Raises
    ``FormatError`` for one that holds something else: with another name its own snapshots would be strangers' to it."""
    with state.locked(_INSTALLATION):
        data = state.get(_INSTALLATION)
        if not data:  # an empty one: a power cut before it had a name, so nothing carries one
            data = uuid.uuid4().hex.encode()
            state.put(_INSTALLATION, data)
    name = data.decode("ascii", "replace").strip()
    if not re.fullmatch("[0-9a-f]{32}", name):
        raise FormatError(f"state record {_INSTALLATION}", "it has to hold 32 hexadecimal digits")
    return name
