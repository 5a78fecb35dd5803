"""What a run must know again after the proxy was killed: one JSON file a run, written before and after the snapshot.

The hypervisor is the truth about overlays and bitmaps; a record adds what it cannot tell: how consistent the snapshot
was proven to be, the machine's definition from before (for machines that vanish with their emulator), and what has to
hold for a machine that was off. Records are small, few, and removed when the run is released.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from proxy.durable import replace_durably, sync_directory
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
    """The directory of run records, and of machines whose guest may still be frozen by us."""

    def __init__(self, directory: Path) -> None:
        self._runs = directory / "runs"
        self._frozen = directory / "frozen"
        for place in (self._runs, self._frozen):
            place.mkdir(parents=True, exist_ok=True)

    def save(self, record: RunRecord) -> None:
        """Durable when it returns; an older record of the run is replaced."""
        text = json.dumps({**asdict(record), "snapshot": snapshot_json.encoded(record.snapshot)}, indent=1)
        replace_durably(self._path(record.run), text.encode())

    def load(self, run: RunId) -> RunRecord | None:
        """The run's record. Raises ``FormatError`` when it cannot be read."""
        try:
            raw = json.loads(self._path(run).read_text(encoding="utf-8"))
            fields = {"ending": (), **raw}  # a record from before there was one has none
            snapshot, ending = snapshot_json.decoded(raw["snapshot"]), tuple(fields["ending"])
            return RunRecord(**{**fields, "snapshot": snapshot, "ending": ending})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(f"record of run {run}", str(error)) from None

    def forget(self, run: RunId) -> None:
        """Remove the run's record; one that is not there is fine."""
        self._path(run).unlink(missing_ok=True)

    def runs(self) -> list[RunId]:
        """Runs that have a record."""
        return sorted(p.stem for p in self._runs.glob("*.json"))

    def note_freeze(self, machine: MachineId) -> None:
        """From now on the guest may be frozen by us. Durable when it returns."""
        (self._frozen / machine).touch()
        sync_directory(self._frozen)

    def note_thaw(self, machine: MachineId) -> None:
        """The guest was seen thawed."""
        (self._frozen / machine).unlink(missing_ok=True)

    def maybe_frozen(self, machine: MachineId | None = None) -> list[MachineId]:
        """Machines (or the one) that we may have frozen and never saw thawed."""
        names = sorted(p.name for p in self._frozen.iterdir())
        return names if machine is None else [n for n in names if n == machine]

    def _path(self, run: RunId) -> Path:
        return self._runs / f"{checked_run(run)}.json"
