"""What a run must know again after the proxy was killed: one JSON record a run, written before and after the snapshot.

The hypervisor is the truth about overlays and bitmaps; a record adds what it cannot tell: how consistent the snapshot
was proven to be, the machine's definition from before (for machines that vanish with their emulator), and what has to
hold for a machine that was off. Records are small, few, and removed when the run is released.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

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
_FROZEN = "frozen"
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """``definition``: the machine's inactive XML without our overlays. ``starts``: see ``Host.starts``, per host name.

    ``snapshot`` is ``None`` from the moment the run announces what it will do until the snapshot is known to be there.
    ``overlays``: the files that it will make, by disk. ``pull``: they are scratch files, old bytes that only its backup job
    needs. ``sealed``: a restore point holds the snapshot, and its end began. ``ending``: overlays whose merge came to the
    step that ends it: if a chain names one of them no more, this is why.
    """

    run: RunId
    machine: MachineId
    host: str
    definition: str
    snapshot: Snapshot | None = None
    starts: Mapping[str, str] = field(default_factory=dict)
    overlays: Mapping[str, str] = field(default_factory=dict)
    sealed: bool = False
    pull: bool = False
    ending: tuple[str, ...] = ()


class Records:
    """Run records, and machines whose guest may still be frozen by us, of all proxies that share ``state``."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def save(self, record: RunRecord) -> None:
        """Durable when it returns; an older record of the run is replaced."""
        text = json.dumps({**asdict(record), "snapshot": snapshot_json.encoded(record.snapshot)}, indent=1)
        self._state.put(_name(record.run), text.encode())

    def load(self, run: RunId) -> RunRecord | None:
        """The run's record. Raises ``FormatError`` when it cannot be read."""
        data = self._state.get(_name(run))
        if data is None:
            return None
        try:
            raw = json.loads(data)
            fields = {"ending": (), **raw}  # a record from before there was one has none
            snapshot, ending = snapshot_json.decoded(raw["snapshot"]), tuple(fields["ending"])
            return RunRecord(**{**fields, "snapshot": snapshot, "ending": ending})
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"record of run {run}", str(error)) from None

    def forget(self, run: RunId) -> None:
        """Remove the run's record; one that is not there is fine."""
        self._state.remove(_name(run))

    def runs(self) -> list[RunId]:
        """Runs that have a record."""
        return [name.removesuffix(_SUFFIX) for name in self._state.names(_RUNS) if name.endswith(_SUFFIX)]

    def note_freeze(self, machine: MachineId) -> None:
        """From now on the guest may be frozen by us. Durable when it returns."""
        self._state.put(f"{_FROZEN}/{machine}", b"")

    def note_thaw(self, machine: MachineId) -> None:
        """The guest was seen thawed."""
        self._state.remove(f"{_FROZEN}/{machine}")

    def maybe_frozen(self, machine: MachineId | None = None) -> list[MachineId]:
        """Machines (or the one) that we may have frozen and never saw thawed."""
        names = self._state.names(_FROZEN)
        return names if machine is None else [n for n in names if n == machine]


def _name(run: RunId) -> str:
    return f"{_RUNS}/{checked_run(run)}{_SUFFIX}"
