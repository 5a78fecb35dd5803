"""Imports: a machine is made from its saved configuration, its disks come up by a lease, then it gets its identity.

::

    begin(sizes)   ImportVApp: a machine with empty disks, off, without identity, kept from being started by the lease
    upload(key)    each disk's stream                                             (``proxy.transport.nfc_target`` sends it)
    complete()     the machine is whole; abort(), or a lease that nobody keeps: vSphere deletes it with its disks
    define()       who had the name or the identity and is off steps aside; name, UUIDs, NVRAM, boot order, tags

Nothing that exists is ever overwritten or deleted: a machine that is restored over steps aside under another name, with other
UUIDs, off, and a person deletes it when the restored one has proven itself.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proxy.errors import FormatError, LanfreeError, RestoreRefused
from proxy.hypervisor.vsphere import collector, files, inventory, tasks
from proxy.hypervisor.vsphere.configuration import Saved, parse
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.definition import MARK, boot_order, config_spec, left_out
from proxy.hypervisor.vsphere.devices import address, virtual_disks
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid
from proxy.hypervisor.vsphere.inventory import Inventory, Machine
from proxy.hypervisor.vsphere.leases import Lease
from proxy.hypervisor.vsphere.nfc_http import Upload
from proxy.hypervisor.vsphere.placement import Placement, resolve
from proxy.hypervisor.vsphere.tags import TagService
from proxy.model import MachineConfiguration, MachineId, PowerState, RunId, VmdkAddress
from proxy.ports import NewMachine

TASK_LIMIT = 600.0
"""Seconds for making or changing a machine's definition: hosts need seconds, busy ones minutes."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a restore was found to mean now. ``aside``: the machine that is off and has to step aside."""

    saved: Saved
    new: NewMachine
    placement: Placement
    identity: MachineId
    aside: Machine | None

    @property
    def fresh(self) -> bool:
        """A copy beside the original: nothing that must be unique may be taken over."""
        return self.identity != self.saved.identity


class ImportedMachine:
    """A machine in the making, with its lease. Made by ``Imports``."""

    def __init__(self, vcenter: Vcenter, lease: Lease, name: str, made: Callable[[Any], None]) -> None:
        self._vcenter = vcenter
        self._lease = lease
        self._what = f"import of {name}"
        self._made = made
        self._over = False

    def host(self, key: str) -> str:
        """Which host takes a disk. Raises ``Refused``."""
        return self._lease.device(key).host

    def upload(self, key: str) -> Upload:
        """Begins one disk. Raises ``Refused``, ``CertificateRefused``, ``OSError``."""
        return Upload(self._lease.device(key), self._what)

    def progress(self, share: float) -> None:
        """How far all of it is, 0 to 1."""
        self._lease.progress(share)

    def complete(self) -> Mapping[str, VmdkAddress]:
        """The machine is whole. Key -> where each disk is now. Raises ``Refused``, ``HostUnreachable``."""
        self._lease.complete()
        self._over = True
        machine = self._lease.entity
        self._made(machine)
        return _places(self._vcenter, machine)

    def abort(self) -> None:
        """The machine goes away again. Never raises; does nothing after ``complete``."""
        if not self._over:
            self._over = True
            self._lease.abort()


class Imports:
    """Restores of one vCenter. Any thread; one restore at a time of one name."""

    def __init__(self, vcenter: Vcenter) -> None:
        self._vcenter = vcenter
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def check_define(self, configuration: MachineConfiguration, new: NewMachine) -> None:
        """Everything that ``define`` would refuse. Raises ``RestoreRefused``, ``Refused``."""
        plan = self._plan(configuration, new)
        config_spec(plan.saved, new, plan.placement, {}, name=new.name, run="", fresh=plan.fresh)

    def left_out(self, configuration: MachineConfiguration, new: NewMachine) -> list[str]:
        """What the new machine does not get of the saved one, for people. Raises ``FormatError``."""
        return left_out(parse(configuration), new)

    def beginner(
        self, run: RunId, configuration: MachineConfiguration, new: NewMachine
    ) -> Callable[[Mapping[str, int]], ImportedMachine]:
        """What begins the import when the disks' sizes are known: key -> bytes."""

        def begin(sizes: Mapping[str, int]) -> ImportedMachine:
            imported = {key for key, place in new.disks.items() if not place.path}
            if imported != sizes.keys():
                other = ", ".join(sorted(imported ^ sizes.keys()))
                raise RestoreRefused(new.name, f"disk {other} was not named, or has no size")
            plan = self._plan(configuration, new)
            name = f"{new.name} (restore {run})" if plan.aside is not None else new.name
            spec = vim.vm.VmImportSpec(
                configSpec=config_spec(
                    plan.saved, plan.new, plan.placement, sizes, name=name, run=run, fresh=plan.fresh
                )
            )
            place = plan.placement
            lease = Lease(self._vcenter, place.pool.ImportVApp(spec, place.folder, place.host), f"import of {name}")
            return ImportedMachine(self._vcenter, lease, name, lambda machine: self._remember(new.name, machine))

        return begin

    def define(self, configuration: MachineConfiguration, new: NewMachine) -> MachineId:
        """The imported machine gets its identity; without an import one is made of disks that lie in datastores already.
        Returns the identity. Raises ``RestoreRefused``, ``Refused``."""
        plan = self._plan(configuration, new)
        with self._lock:
            machine = self._made.get(new.name)
        if machine is not None:
            self._settle(plan, machine, configuration.nvram)
            with self._lock:
                self._made.pop(new.name, None)
            return plan.identity
        machine = self._create(plan)
        try:
            self._settle(plan, machine, configuration.nvram)
        except BaseException:
            with suppress(LanfreeError):
                machine.UnregisterVM()  # its disks are not ours to delete
            raise
        return plan.identity

    def _remember(self, name: str, machine: Any) -> None:
        with self._lock:
            self._made[name] = machine

    # -- what is asked before ------------------------------------------------------------------------------------

    def _plan(self, configuration: MachineConfiguration, new: NewMachine) -> _Plan:
        try:
            saved = parse(configuration)
        except FormatError as error:
            raise RestoreRefused(new.name, error.message) from error
        missing = sorted(new.disks.keys() - {disk.key for disk in saved.disks})
        if missing:
            raise RestoreRefused(new.name, f"its configuration has no disk {', '.join(missing)}")
        identity = (new.identity or saved.identity).lower()
        with self._lock:
            ours = moid(self._made.get(new.name))
        seen = inventory.read(self._vcenter, tags=False)
        aside = None
        for machine in seen.machines:
            if machine.id == ours:
                continue
            if machine.machine.id == identity:
                aside = _that_steps_aside(seen, machine, new)
            elif machine.machine.name == new.name:
                hint = "restore under another name"
                raise RestoreRefused(new.name, f"the name is taken by machine {machine.machine.id}", hint=hint)
        plan = _Plan(saved, new, resolve(self._vcenter, saved, new), identity, aside)
        if not plan.fresh:
            self._check_macs(plan, ours)
        return plan

    def _check_macs(self, plan: _Plan, ours: str) -> None:
        """A machine that keeps its identity keeps its MAC addresses: nobody else may have them."""
        wanted = {nic.mac.lower() for nic in plan.saved.nics if nic.mac}
        if not wanted:
            return
        known = {ours, plan.aside.id if plan.aside else ""}
        for found in collector.find(self._vcenter, vim.VirtualMachine, ("name", "config.hardware.device")):
            taken = wanted & {
                str(d.macAddress).lower()
                for d in found.get("config.hardware.device") or ()
                if isinstance(d, vim.vm.device.VirtualEthernetCard) and d.macAddress
            }
            if taken and found.id not in known:
                raise RestoreRefused(
                    plan.new.name,
                    f"MAC address {', '.join(sorted(taken))} is that of machine {found.get('name')}",
                    hint="restore it with a new identity: it gets new addresses then",
                )

    # -- what is done --------------------------------------------------------------------------------------------

    def _create(self, plan: _Plan) -> Any:
        """A machine of disks that are there already."""
        lost = sorted(key for key, place in plan.new.disks.items() if not place.path)
        if lost:
            raise RestoreRefused(plan.new.name, f"disk {', '.join(lost)} was not imported")
        name = f"{plan.new.name} (restore)" if plan.aside is not None else plan.new.name
        spec = config_spec(plan.saved, plan.new, plan.placement, {}, name=name, run="", fresh=plan.fresh)
        place = plan.placement
        return self._wait(place.folder.CreateVM_Task(spec, place.pool, place.host), f"create {name}")

    def _settle(self, plan: _Plan, machine: Any, nvram: bytes | None) -> None:
        """Identity last: what fails before leaves a machine that nothing takes for the original."""
        if nvram is not None:
            self._put_nvram(plan, machine, nvram)
        undo = self._step_aside(plan.aside) if plan.aside is not None else None
        try:
            self._wait(machine.ReconfigVM_Task(self._identity(plan, machine)), f"define {plan.new.name}")
        except BaseException:
            if undo is not None:
                with suppress(LanfreeError):
                    undo()
            raise
        self._label(plan, machine)

    def _identity(self, plan: _Plan, machine: Any) -> Any:
        bios = plan.identity if plan.fresh else plan.saved.bios_uuid or plan.identity
        present = virtual_disks(self._devices(machine))
        return vim.vm.ConfigSpec(
            name=plan.new.name,
            uuid=bios,
            instanceUuid=plan.identity,
            bootOptions=boot_order(plan.saved, {key: device.key for key, device in present.items()}),
            extraConfig=[vim.option.OptionValue(key=MARK, value="")],
        )

    def _step_aside(self, machine: Machine) -> Callable[[], None]:
        """Returns what takes it back."""
        old = self._vcenter.object(vim.VirtualMachine, machine.id)
        found = collector.read_one(self._vcenter, old, "name", "config.uuid", "config.instanceUuid")
        moment = datetime.now(UTC)
        spec = vim.vm.ConfigSpec(
            name=f"{found.get('name')} (before restore {moment:%Y-%m-%d %H:%M:%S})",
            uuid=str(uuid.uuid4()),
            instanceUuid=str(uuid.uuid4()),
        )
        self._wait(old.ReconfigVM_Task(spec), f"move {found.get('name')} aside")
        before = vim.vm.ConfigSpec(
            name=found.get("name"), uuid=found.get("config.uuid"), instanceUuid=found.get("config.instanceUuid")
        )
        return lambda: self._wait(old.ReconfigVM_Task(before), f"take {found.get('name')} back")

    def _put_nvram(self, plan: _Plan, machine: Any, nvram: bytes) -> None:
        """Before the first start the file is not there, or nobody has written to it."""
        found = collector.read_one(self._vcenter, machine, "config.files.vmPathName", "config.extraConfig")
        vmx = str(found.get("config.files.vmPathName") or "")
        folder, _, file = vmx.rpartition("/")
        named = {o.key: str(o.value) for o in found.get("config.extraConfig") or ()}.get("nvram", "")
        name = named or f"{file.removesuffix('.vmx')}.nvram"
        files.write(self._vcenter, plan.placement.datacenter, f"{folder}/{name}", nvram)
        if not named:
            spec = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key="nvram", value=name)])
            self._wait(machine.ReconfigVM_Task(spec), f"set the NVRAM of {plan.new.name}")

    def _label(self, plan: _Plan, machine: Any) -> None:
        """Attributes, tags, disks' serial numbers. A machine without them is restored all the same."""
        if not plan.fresh:
            self._number_disks(plan, machine)
        fields = self._vcenter.content.customFieldsManager
        known = {f.name: f.key for f in fields.field or ()} if fields is not None and plan.saved.attributes else {}
        for name, value in plan.saved.attributes.items():
            if name in known:
                with suppress(Refused):
                    fields.SetField(machine, known[name], value)
        if plan.saved.tags:
            with suppress(Refused), TagService(self._vcenter) as service:
                service.attach("VirtualMachine", moid(machine), plan.saved.tags)

    def _number_disks(self, plan: _Plan, machine: Any) -> None:
        """The guest may know its disks by their serial numbers."""
        present, manager = virtual_disks(self._devices(machine)), self._vcenter.content.virtualDiskManager
        for disk in plan.saved.disks:
            place = plan.new.disks.get(disk.key)
            if disk.uuid and disk.key in present and place is not None and not place.path:
                name = str(present[disk.key].backing.fileName)
                with suppress(Refused):
                    manager.SetVirtualDiskUuid(name, plan.placement.center, disk.uuid)

    def unfinished(self) -> list[tuple[str, RunId]]:
        """Machines that were imported whole and never defined: name, and the run that made it. For people to look at."""
        found = []
        for one in collector.find(self._vcenter, vim.VirtualMachine, ("name", "config.extraConfig")):
            marks = [str(o.value) for o in one.get("config.extraConfig") or () if o.key == MARK and o.value]
            found += [(str(one.get("name")), run) for run in marks]
        return found

    def _devices(self, machine: Any) -> Any:
        return collector.read_one(self._vcenter, machine, "config.hardware.device").get("config.hardware.device") or ()

    def _wait(self, task: Any, what: str) -> Any:
        return tasks.wait(self._vcenter, task, what, limit=TASK_LIMIT)


def _that_steps_aside(seen: Inventory, machine: Machine, new: NewMachine) -> Machine:
    """The machine that has the identity, if it may. Raises ``RestoreRefused``."""
    shown = machine.machine
    if shown.state is not PowerState.OFF:
        raise RestoreRefused(
            new.name,
            f"its identity is that of {shown.name}, which is {shown.state.value} on {shown.host}",
            hint="shut it down first, or restore with a new identity",
        )
    silent = {host.name for host in seen.hosts if not host.usable}
    if shown.host in silent - new.without_hosts:
        raise RestoreRefused(new.name, f"{shown.name} may run on {shown.host}, which vCenter does not see now")
    if machine.template:
        raise RestoreRefused(
            new.name, f"its identity is that of template {shown.name}", hint="restore with a new identity"
        )
    return machine


def _places(vcenter: Vcenter, machine: Any) -> dict[str, VmdkAddress]:
    """Key -> where each disk of a machine is."""
    around = inventory.surroundings(vcenter, machine)
    found = collector.read_one(vcenter, machine, "config.hardware.device")
    places = {
        key: address(device, device.backing, around)
        for key, device in virtual_disks(found.get("config.hardware.device") or ()).items()
    }
    lost = sorted(key for key, place in places.items() if place is None)
    if lost:
        raise Refused(f"import of {moid(machine)}", f"disk {', '.join(lost)} has no file", Refusal.GONE)
    return {key: place for key, place in places.items() if place is not None}
