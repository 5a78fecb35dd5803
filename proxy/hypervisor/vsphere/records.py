"""What a run must know again after the proxy was killed: one JSON record a run, written before anything is done to its machine.

vCenter is the truth about snapshots; a record adds that relocation may be disabled for a machine, how consistent the snapshot
was proven to be, and what has to hold for a template that is read without one. Records also are what the limit of snapshots
for each datastore counts, across all proxies that share their state.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from proxy.errors import FormatError
from proxy.hypervisor import snapshot_json
from proxy.hypervisor.run_ids import checked_run
from proxy.model import (
    MachineId,
    RunId,
    Snapshot,
)
from proxy.ports import StateStore

_RUNS = "runs"
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """``datastores``: names of those that the snapshot's deltas lie on. ``blocked``: relocation may be disabled
    for the machine. ``version``: ``config.changeVersion`` of a template that is read without a snapshot."""

    run: RunId
    machine: MachineId
    datastores: tuple[str, ...] = ()
    blocked: bool = True
    version: str = ""
    snapshot: Snapshot | None = None


class Records:
    """Run records. Any thread, and several proxies at once."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def reserve(self, record: RunRecord, limit: int) -> str:
        """Durable when it returns an empty string; else a datastore where ``limit`` other runs have snapshots already."""
        with self._state.locked("reserve"):
            taken = [name for other in self._others(record.run) for name in other.datastores]
            full = [name for name in record.datastores if taken.count(name) >= limit]
            if full:
                return full[0]
            self.save(record)
        return ""

    def save(self, record: RunRecord) -> None:
        """Durable when it returns; an older record of the run is replaced."""
        text = json.dumps({**asdict(record), "snapshot": snapshot_json.encoded(record.snapshot)}, indent=1)
        self._state.put(_name(record.run), text.encode())

    def load(self, run: RunId) -> RunRecord | None:
        """Raises ``FormatError`` when it cannot be read."""
        data = self._state.get(_name(run))
        if data is None:
            return None
        try:
            raw = json.loads(data)
            snapshot = snapshot_json.decoded(raw["snapshot"])
            return RunRecord(**{**raw, "datastores": tuple(raw["datastores"]), "snapshot": snapshot})
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"record of run {run}", str(error)) from None

    def forget(self, run: RunId) -> None:
        """Remove the run's record; one that is not there is fine."""
        self._state.remove(_name(run))

    def runs(self) -> list[RunId]:
        """Runs that have a record."""
        return [name.removesuffix(_SUFFIX) for name in self._state.names(_RUNS) if name.endswith(_SUFFIX)]

    def of_machine(self, machine: MachineId) -> list[RunRecord]:
        """Records of runs on this machine."""
        return [record for record in self._others("") if record.machine == machine]

    def _others(self, run: RunId) -> Iterator[RunRecord]:
        for other in self.runs():
            with suppress(
                FormatError
            ):  # a sweep tells it; one damaged record does not keep all machines from their backups
                record = self.load(other) if other != run else None
                if record is not None:
                    yield record


def _name(run: RunId) -> str:
    return f"{_RUNS}/{checked_run(run)}{_SUFFIX}"
