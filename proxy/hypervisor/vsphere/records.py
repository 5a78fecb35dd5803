"""What a run must know again after the proxy was killed: one JSON file a run, written before anything is done to its machine.

vCenter is the truth about snapshots; a record adds that relocation may be disabled for a machine, how consistent the snapshot
was proven to be, and what has to hold for a template that is read without one. Records also are what the limit of snapshots
for each datastore counts, across all proxies that share the state directory.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.durable import replace_durably
from proxy.errors import FormatError
from proxy.hypervisor import snapshot_json
from proxy.hypervisor.run_ids import checked_run
from proxy.model import (
    MachineId,
    RunId,
    Snapshot,
)


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
    """The directory of run records. Any thread, and several proxies at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "runs"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = directory / "lock"

    def reserve(self, record: RunRecord, limit: int) -> str:
        """Durable when it returns an empty string; else a datastore where ``limit`` other runs have snapshots already."""
        with self._locked():
            taken = [name for other in self._others(record.run) for name in other.datastores]
            full = [name for name in record.datastores if taken.count(name) >= limit]
            if full:
                return full[0]
            self.save(record)
        return ""

    def save(self, record: RunRecord) -> None:
        """Durable when it returns; an older record of the run is replaced."""
        text = json.dumps({**asdict(record), "snapshot": snapshot_json.encoded(record.snapshot)}, indent=1)
        replace_durably(self._path(record.run), text.encode())

    def load(self, run: RunId) -> RunRecord | None:
        """Raises ``FormatError`` when it cannot be read."""
        try:
            raw = json.loads(self._path(run).read_text(encoding="utf-8"))
            snapshot = snapshot_json.decoded(raw["snapshot"])
            return RunRecord(**{**raw, "datastores": tuple(raw["datastores"]), "snapshot": snapshot})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"record of run {run}", str(error)) from None

    def forget(self, run: RunId) -> None:
        """Remove the run's record; one that is not there is fine."""
        self._path(run).unlink(missing_ok=True)

    def runs(self) -> list[RunId]:
        """Runs that have a record."""
        return sorted(path.stem for path in self._directory.glob("*.json"))

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

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file
            yield

    def _path(self, run: RunId) -> Path:
        return self._directory / f"{checked_run(run)}.json"
