"""The driver over the simulated vCenter, and short words for what every test of it does."""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proxy.hypervisor.vsphere import internal, inventory, tasks
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.driver import VsphereSite
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.hypervisor.vsphere.tls import PinnedConnection
from proxy.model import FrozenDisk, ReasonCode, Snapshot, SnapshotRequest, VmdkAddress
from proxy.state_directory import StateDirectory
from tests.system.vcsim.lab import VcsimLab

_runs = itertools.count(1)


class SiteBench:
    """``state``: the driver's state directory; ``settings``: what differs from the lab's."""

    def __init__(self, lab: VcsimLab, state: Path, **settings: Any) -> None:
        self.lab = lab
        self.state = state
        self._changed = settings
        self.site = self.new_site()

    def settings(self, **changed: Any) -> VsphereSettings:
        lab = self.lab
        given = {"port": lab.port, "thumbprint": lab.thumbprint, "restart_patience": 30.0, **self._changed, **changed}
        return VsphereSettings("lab", lab.host, lab.user, lab.password_file, **given)

    def new_site(self, state: Path | None = None, vcenter: Vcenter | None = None, **settings: Any) -> VsphereSite:
        return VsphereSite(
            self.settings(**settings), state=StateDirectory(state or self.state), vcenter=vcenter, pause=0.05
        )

    def request(self, name: str, *disks: str, run: str = "", **asked: Any) -> SnapshotRequest:
        run = run or f"20261122-{next(_runs):04}-{time.time_ns() % 10**9:09}"
        return SnapshotRequest(run, self.lab.instance_uuid(name), disks or ("scsi0:0",), **asked)

    def taken(self, name: str, *disks: str, **asked: Any) -> Snapshot:
        return self.site.snapshot(self.request(name, *disks, **asked))

    def vm(self, name: str) -> Any:
        return inventory.find_machine(self.site.vcenter, self.lab.instance_uuid(name))

    def done(self, task: Any) -> Any:
        return tasks.wait(self.site.vcenter, task, "by hand", limit=30)

    def foreign_snapshot(self, name: str, called: str = "before the upgrade", text: str = "") -> Any:
        """Somebody else's."""
        return self.done(self.vm(name).CreateSnapshot_Task(called, text, False, False))

    def remove(self, snapshot: Any) -> None:
        self.done(snapshot.RemoveSnapshot_Task(False))

    def tidy(self) -> None:
        """So that what one test leaves behind does not fail the others."""
        for machine in self.lab.machines:
            self.done(self.vm(machine.name).RemoveAllSnapshots_Task())
            for disabled in self.lab.machine(machine.name)["Disabled"] or ():
                methods = [disabled["Method"]]
                internal.enable_methods(self.site.vcenter, [self.vm(machine.name)], methods, source=disabled["Source"])

    def clean(self) -> bool:
        """No machine has a snapshot, or a method that is disabled, or a chain; no run is on record."""
        told = [self.lab.machine(machine.name) for machine in self.lab.machines]
        untouched = all(not t["Snapshots"] and not t["Disabled"] for t in told)
        single = all(len(disk["Files"]) == 1 for t in told for disk in t["Disks"])
        return untouched and single and not list(self.state.glob("*/runs/*"))


def place(disk: FrozenDisk) -> VmdkAddress:
    (layer,) = disk.layers
    assert isinstance(layer.location, VmdkAddress)
    return layer.location


def codes(snapshot: Snapshot) -> Sequence[ReasonCode]:
    return [reason.code for reason in snapshot.reasons]


class Killed(SystemExit):
    """The proxy died: nothing catches it, and nothing that is still done reaches vCenter. Its threads end with it, and as
    with every ``SystemExit`` nobody is told."""


class Life:
    """Of a worker: it ends at its N-th step to the outside, before that is done, or (``answered``) when it is and nobody
    hears of it. Nothing that is still called afterwards reaches anything."""

    def __init__(self, dies_at: int = 0, *, answered: bool = False) -> None:
        self.steps = 0
        self.dead = False
        self._dies_at = dies_at
        self._answered = answered

    def step(self) -> None:
        """Before it is done."""
        if self.dead:
            raise Killed
        self.stepped()  # the one before could not tell its end
        self.steps += 1
        self._reached(answered=False)

    def stepped(self) -> None:
        """It is done."""
        self._reached(answered=True)

    def end(self) -> None:
        self.dead = True
        raise Killed

    def _reached(self, *, answered: bool) -> None:
        if self._dies_at and self.steps == self._dies_at and answered == self._answered:
            self.end()


class MortalVcenter(Vcenter):
    """A connection of a worker with a ``life``, to a vCenter that does not always do as it is asked.

    ``fail``: what the next calls of a method get instead of an answer; ``lose``: methods whose next answer is lost."""

    def __init__(self, settings: VsphereSettings, *, life: Life | None = None) -> None:
        super().__init__(settings)
        self.life = life or Life()
        self.fail: dict[str, list[Exception]] = {}
        self.lose: set[str] = set()
        self.hold_until = ""
        """From the first snapshot's call until the next one of this method every task is said to run on."""
        self.dies_before = ""
        self.before: dict[str, Callable[[], object]] = {}
        """What somebody else does right before the next call of a method."""
        self._holds = False

    def _invoke(self, mo: Any, info: Any, args: Any) -> Any:
        method = info.wsdlName
        self.life.step()
        if method == self.dies_before:
            self.life.end()
        if method == "CreateSnapshotEx_Task" and self.hold_until:
            self._holds = True
        elif method == self.hold_until:
            self._holds, self.hold_until = False, ""
        self.before.pop(method, bool)()
        if self.fail.get(method):
            raise self.fail[method].pop(0)
        answer = super()._invoke(mo, info, args)
        self.life.stepped()
        if self._holds and method.startswith("Retrieve"):
            _run_on(answer)
        if method in self.lose:
            self.lose.remove(method)
            raise Refused(method, "the answer was lost", Refusal.OUTCOME_UNKNOWN)
        return answer

    def http(self, timeout: float | None = None) -> PinnedConnection:
        """Used by calls that pyVmomi does not know, and for files."""
        self.life.step()
        return super().http(timeout)


def _run_on(answer: Any) -> None:
    for known in (p for one in getattr(answer, "objects", None) or () for p in one.propSet or ()):
        if isinstance(known.val, vim.TaskInfo):
            known.val.state = "running"
