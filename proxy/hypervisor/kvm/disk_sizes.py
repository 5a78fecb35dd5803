"""Virtual sizes of disks, for listings, from hosts on which an array may not answer.

The size is the one thing in a listing that libvirt asks the emulator for, and an emulator whose array hangs keeps the
question: QEMU reads the bitmaps of a qcow2 image for its answer. The question holds one of the host's few workers, too.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from proxy.errors import LanfreeError
from proxy.hypervisor.kvm.connection import Domain
from proxy.model import MachineId

# Seconds to wait for the sizes of a machine's disks, which its emulator tells in milliseconds unless its array hangs.
# While a host owes an answer, its other machines get less: they may be many.
PATIENCE = 3.0
PATIENCE_LATER = 0.2

# Answers that a host may owe before nothing more is asked: libvirtd has 20 workers for all its clients (``max_workers``).
MOST_OWED = 4


class DiskSizes:
    """What the hosts of a site say, and what they said before. Calls may come from any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[MachineId, str], int] = {}
        self._owed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def of(self, place: Domain, keys: Sequence[str]) -> Mapping[str, int]:
        """Bytes by key. What is not told in time is as it was told last; what never was is absent. 0: libvirt cannot tell."""
        with self._lock:
            owed = self._owed[place.host.name]
        if keys and owed < MOST_OWED and place.responsive():
            self._ask(place, keys, PATIENCE_LATER if owed else PATIENCE)
        with self._lock:
            return {key: self._known[place.machine, key] for key in keys if (place.machine, key) in self._known}

    def _ask(self, place: Domain, keys: Sequence[str], patience: float) -> None:
        """A thread of its own asks, and is left behind when it takes too long."""
        question = _Question()

        def work() -> None:
            try:
                with suppress(LanfreeError):  # it vanished, or its host is silent
                    for key in keys:
                        size = place.disk_size(key)
                        with self._lock:
                            self._known[place.machine, key] = size
            finally:
                with self._lock:
                    question.over = True
                    if question.given_up:
                        self._owed[place.host.name] -= 1

        thread = threading.Thread(target=work, name=f"sizes-{place.machine}", daemon=True)
        thread.start()
        thread.join(patience)
        with self._lock:
            if not question.over:
                question.given_up = True
                self._owed[place.host.name] += 1


@dataclass(slots=True)
class _Question:
    """``given_up``: nobody waits for it any more."""

    over: bool = False
    given_up: bool = False
