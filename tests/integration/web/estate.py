"""The machines of a company of some size, the same at each call, and the site that shows them.

Two KVM hosts at a branch, two ESXi hosts in a vCenter with folders and tags. Their disks are as large as such machines' are;
what a test reads of them is some KiB.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.hypervisor.memory import MemoryHypervisor
from proxy.machine_rules import Candidate
from proxy.model import (
    Disk,
    FileAddress,
    Format,
    LunAddress,
    MachineId,
    PowerState,
    Reason,
    ReasonCode,
    Tracking,
    VirtualMachine,
    VmdkAddress,
)
from proxy.units import GiB, KiB
from tests.integration.serving.directory_site import DirectorySite

VCENTER = "vcenter-hq"

HOSTS = ("esx01.hq.example", "esx02.hq.example", "kvm01.branch.example", "kvm02.branch.example")

IQN = "iqn.2026-11.example.storage:lanfree"


@dataclass(frozen=True, slots=True)
class Kind:
    """So many machines of a name. ``folder``: in the vCenter; without one they are on KVM hosts. ``disks``: GiB each."""

    name: str
    number: int
    disks: tuple[int, ...]
    folder: str = ""
    tag: str = ""
    agent: bool = True


KINDS = (
    Kind("web", 8, (120,), "/HQ/vm/Production/Web", "backup:gold"),
    Kind("app", 8, (80, 400), "/HQ/vm/Production/Apps", "backup:gold"),
    Kind("db", 6, (100, 1200), "/HQ/vm/Production/Databases", "backup:databases"),
    Kind("mail", 2, (80, 2400), "/HQ/vm/Production/Office", "backup:gold"),
    Kind("erp", 2, (80, 900), "/HQ/vm/Production/Office", "backup:gold", agent=False),
    Kind("test", 3, (120,), "/HQ/vm/Test"),
    Kind("files", 2, (80, 6000)),
    Kind("dc", 2, (120,)),
    Kind("print", 2, (80,), agent=False),
    Kind("branch", 4, (80, 300)),
    Kind("lab", 2, (60,)),
)

OFF = frozenset({"test-03", "lab-02"})

PASSED_THROUGH = frozenset({"erp-02"})
"""Machines with a disk that no snapshot holds."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A machine as the company's own list of them has it."""

    id: MachineId
    name: str
    host: str
    disks: tuple[int, ...]
    folder: str
    tags: tuple[str, ...]
    agent: bool
    state: PowerState

    @property
    def place(self) -> str:
        """Datastore of its disks, or target of their LUN."""
        number = int(self.name[-2:]) % 2 + 1
        return f"ds-prod-{number}" if self.folder else f"{IQN}-branch-{number}"

    @property
    def size(self) -> int:
        """Of all disks, bytes."""
        return sum(self.disks) * GiB


def machines() -> list[Listed]:
    """All of them, by name."""
    made: list[Listed] = []
    for kind in KINDS:
        hosts = HOSTS[:2] if kind.folder else HOSTS[2:]
        for number in range(1, kind.number + 1):
            name = f"{kind.name}-{number:02}"
            identity = f"{random.Random(name).getrandbits(32):08x}-5a1d-4c0e-9b7f-{number:04}{kind.number:08}"
            state = PowerState.OFF if name in OFF else PowerState.RUNNING
            tags = (kind.tag, "owner:it") if kind.tag else ()
            made.append(Listed(identity, name, hosts[number % 2], kind.disks, kind.folder, tags, kind.agent, state))
    return sorted(made, key=lambda one: one.name)


class Estate(DirectorySite):
    """These machines in ``directory``, and what a vCenter tells of those that are in it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, HOSTS)
        self._listed = {one.name: one for one in machines()}

    def fill(self) -> None:
        """Put them there."""
        for one in self._listed.values():
            disks = {key: bytes(64 * KiB) for key in _keys(one)}
            tracking = Tracking.HYPERVISOR if one.folder else Tracking.LAYER
            self.add(one.name, disks, host=one.host, identity=one.id, state=one.state, tracking=tracking)

    def candidates(self) -> tuple[Mapping[MachineId, Candidate], Mapping[str, str], Mapping[str, str]]:
        """See ``appliance.vsphere``: machines by identity, who did not answer, whose tags could not be read."""
        known = {
            machine.id: Candidate(
                machine,
                folder=one.folder,
                cluster="Production",
                datastores=(one.place,),
                tags=one.tags,
                site=VCENTER,
            )
            for machine in self.machines()
            if (one := self._listed.get(machine.name)) is not None and one.folder
        }
        return known, {}, {}

    def close(self) -> None:
        """There is nothing to log out of."""

    def _shown(self, site: MemoryHypervisor, place: str) -> VirtualMachine:
        machine = super()._shown(site, place)
        one = self._listed.get(machine.name)
        if one is None:
            return machine
        return replace(machine, disks=_disks(one), agent=one.agent and one.state is PowerState.RUNNING)


def _keys(one: Listed) -> Sequence[str]:
    return [f"scsi0:{n}" if one.folder else f"vd{'abcd'[n]}" for n in range(len(one.disks))]


def _disks(one: Listed) -> tuple[Disk, ...]:
    disks: list[Disk] = []
    for number, (key, gib) in enumerate(zip(_keys(one), one.disks, strict=True)):
        if one.folder:
            path = f"{one.name}/{one.name}{f'_{number}' if number else ''}.vmdk"
            location: VmdkAddress | LunAddress = VmdkAddress(one.place, path, site=VCENTER)
            disks.append(Disk(key, gib * GiB, Format.VMDK, location))
        else:
            disks.append(Disk(key, gib * GiB, Format.RAW, LunAddress(one.place, number + 1)))
    if one.name in PASSED_THROUGH:
        why = Reason(ReasonCode.DISK_PASSTHROUGH, "a LUN of the array is passed through to the guest")
        disks.append(Disk("scsi1:0", 500 * GiB, Format.RAW, FileAddress("/dev/passed-through"), why))
    return tuple(disks)


def written(directory: Path) -> None:
    """Make the directory of the site say which hosts it has."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts").write_text(json.dumps(HOSTS))
