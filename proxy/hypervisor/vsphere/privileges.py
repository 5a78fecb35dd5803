"""The role that Lanfree's user needs in vCenter, privilege by privilege, and whether it has it.

Make a role of these and give it to the user on the vCenter object, with "Propagate to children"; or on the folders, datastores,
networks and pools concerned (the ``global`` ones only count on the vCenter object itself). Every role has ``System.Anonymous``,
``System.View`` and ``System.Read``, which is all that the inventory takes. Administrator is not needed anywhere.

For backups:

==============================================  ======  ====================================================================
privilege                                       on      why
==============================================  ======  ====================================================================
VirtualMachine.State.CreateSnapshot             VM      the snapshot that holds the disks still
VirtualMachine.State.RemoveSnapshot             VM      removing it again, and consolidating what a removal left behind
VirtualMachine.Config.ChangeTracking            VM      switching change tracking on, once a machine
VirtualMachine.Provisioning.DiskRandomRead      VM      which areas are allocated or changed; reading over VDDK
VirtualMachine.Provisioning.GetVmFiles          VM      the firmware's variables (NVRAM)
Datastore.Browse                                store   the same, on the datastore's side
VApp.Export                                     VM      reading over the LAN (NFC export) where the SAN has no path
Global.DisableMethods, Global.EnableMethods     global  no Storage vMotion while a disk's blocks are read from the SAN
==============================================  ======  ====================================================================

For restores, besides:

==============================================  ======  ====================================================================
VApp.Import                                     pool    the import that a restored machine arrives by
VirtualMachine.Inventory.Create                 folder  making it there
VirtualMachine.Inventory.Delete                 folder  removing a machine whose restore was broken off
VirtualMachine.Inventory.Unregister             folder  the same, where its disks were there before and must stay
Resource.AssignVMToPool                         pool    putting it into its pool
Datastore.AllocateSpace                         store   its disks
Datastore.FileManagement                        store   putting its NVRAM and its disks' UUIDs back
Network.Assign                                  net     its network cards
VirtualMachine.Config.AddNewDisk                folder  disks of the new machine
VirtualMachine.Config.AddExistingDisk           folder  a disk that was restored into an existing file
VirtualMachine.Config.RemoveDisk                folder  handing a single restored disk over to another machine
VirtualMachine.Config.AddRemoveDevice           folder  controllers and network cards
VirtualMachine.Config.EditDevice                folder  connecting network cards
VirtualMachine.Config.CPUCount, .Memory         folder  processors and memory
VirtualMachine.Config.Resource                  folder  their reservations and shares
VirtualMachine.Config.Settings                  folder  firmware, boot options, guest
VirtualMachine.Config.AdvancedConfig            folder  advanced settings (vmx keys)
VirtualMachine.Config.Annotation, .Rename       folder  notes; stepping aside of the machine that is replaced
VirtualMachine.Provisioning.PutVmFiles          folder  its NVRAM
==============================================  ======  ====================================================================

Good to have: ``InventoryService.Tagging.AttachTag`` and ``Global.SetCustomField`` (tags and attributes of restored machines),
``VirtualMachine.GuestOperations.Query`` and ``VirtualMachine.GuestOperations.Modify`` (files back into a running guest),
``VirtualMachine.Config.DiskLease`` (only for reading over VDDK), ``Cryptographer.Access`` (only for encrypted machines),
``Global.CancelTask`` (ending a task that takes too long, in place of only waiting no more).

Sources: "Required Privileges" of each method in the vSphere Web Services API reference; vSphere Security, "Defined Privileges".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import moid

# Objects asked about in one call; an answer has a line for each pair of object and privilege.
BATCH = 200


class Need(StrEnum):
    """What does not work without it."""

    BACKUP = "backup"
    RESTORE = "restore"
    OPTIONAL = "optional"


class Scope(StrEnum):
    """Which objects it is checked on."""

    GLOBAL = "vCenter"
    MACHINE = "machine"
    FOLDER = "folder"
    POOL = "resource pool"
    DATASTORE = "datastore"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Privilege:
    """``id`` as vSphere's API names it; ``why``: what it is for, for people."""

    id: str
    need: Need
    scope: Scope
    why: str


def _rows(need: Need, scope: Scope, why: Mapping[str, str]) -> list[Privilege]:
    return [Privilege(name, need, scope, text) for name, text in why.items()]


PRIVILEGES: tuple[Privilege, ...] = (
    *_rows(
        Need.BACKUP,
        Scope.MACHINE,
        {
            "VirtualMachine.State.CreateSnapshot": "make the snapshot that holds the disks still",
            "VirtualMachine.State.RemoveSnapshot": "remove it again, and consolidate",
            "VirtualMachine.Config.ChangeTracking": "switch change tracking on",
            "VirtualMachine.Provisioning.DiskRandomRead": "ask which areas are allocated or changed",
            "VirtualMachine.Provisioning.GetVmFiles": "read the firmware's variables (NVRAM)",
            "VApp.Export": "read over the LAN where the SAN has no path",
        },
    ),
    *_rows(Need.BACKUP, Scope.DATASTORE, {"Datastore.Browse": "read the firmware's variables (NVRAM)"}),
    *_rows(
        Need.BACKUP,
        Scope.GLOBAL,
        {
            "Global.DisableMethods": "hold off Storage vMotion while blocks are read from the SAN",
            "Global.EnableMethods": "allow Storage vMotion again",
        },
    ),
    *_rows(
        Need.RESTORE,
        Scope.FOLDER,
        {
            "VirtualMachine.Inventory.Create": "make the restored machine",
            "VirtualMachine.Inventory.Delete": "remove a machine whose restore was broken off",
            "VirtualMachine.Inventory.Unregister": "remove one, but leave the disks that were there before",
            "VirtualMachine.Config.AddNewDisk": "give it disks",
            "VirtualMachine.Config.AddExistingDisk": "give it a disk that was restored into an existing file",
            "VirtualMachine.Config.RemoveDisk": "hand a single restored disk over to another machine",
            "VirtualMachine.Config.AddRemoveDevice": "give it controllers and network cards",
            "VirtualMachine.Config.EditDevice": "connect its network cards",
            "VirtualMachine.Config.CPUCount": "set its processors",
            "VirtualMachine.Config.Memory": "set its memory",
            "VirtualMachine.Config.Resource": "set its reservations and shares",
            "VirtualMachine.Config.Settings": "set firmware, boot options and guest",
            "VirtualMachine.Config.AdvancedConfig": "set its advanced settings",
            "VirtualMachine.Config.Annotation": "put its notes back",
            "VirtualMachine.Config.Rename": "let the machine that is replaced step aside",
            "VirtualMachine.Provisioning.PutVmFiles": "put its NVRAM back",
        },
    ),
    *_rows(
        Need.RESTORE,
        Scope.POOL,
        {"VApp.Import": "import the machine", "Resource.AssignVMToPool": "put the machine into its pool"},
    ),
    *_rows(
        Need.RESTORE,
        Scope.DATASTORE,
        {
            "Datastore.AllocateSpace": "make its disks",
            "Datastore.FileManagement": "put its NVRAM and its disks' UUIDs back",
        },
    ),
    *_rows(Need.RESTORE, Scope.NETWORK, {"Network.Assign": "connect its network cards to networks"}),
    *_rows(
        Need.OPTIONAL,
        Scope.GLOBAL,
        {
            "InventoryService.Tagging.AttachTag": "put tags back",
            "Global.SetCustomField": "put custom attributes back",
            "Global.CancelTask": "end a task that takes too long",
        },
    ),
    *_rows(
        Need.OPTIONAL,
        Scope.MACHINE,
        {
            "VirtualMachine.GuestOperations.Query": "see which files a running guest has, before some are put back",
            "VirtualMachine.GuestOperations.Modify": "put files back into a running guest",
            "VirtualMachine.Config.DiskLease": "read over VDDK",
            "Cryptographer.Access": "export encrypted machines over the LAN",
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``missing``: names of the objects where the user lacks it, of ``asked`` that were asked about. ``known``: this vCenter
    has a privilege of that name; releases differ, and what it does not have it does not demand."""

    privilege: Privilege
    asked: int
    missing: tuple[str, ...]
    known: bool = True

    @property
    def granted(self) -> bool:
        """Nothing is missing; with no object of its kind in sight nobody can tell, and it counts as missing."""
        return not self.known or (self.asked > 0 and not self.missing)

    def __str__(self) -> str:
        """``Datastore.Browse is missing on 2 of 5 (LUN1, LUN2): read the firmware's variables``."""
        privilege = self.privilege
        if self.granted:
            return f"{privilege.id}: granted"
        if not self.asked:
            return f"{privilege.id}: this user sees no {privilege.scope} at all"
        some = ", ".join(self.missing[:5]) + (", …" if len(self.missing) > 5 else "")
        return f"{privilege.id} is missing on {len(self.missing)} of {self.asked} ({some}): {privilege.why}"


def check(vcenter: Vcenter, needs: Iterable[Need] = tuple(Need)) -> list[Verdict]:
    """Each privilege of these needs on every object that it is about, in the order of ``PRIVILEGES``. Raises ``Refused``."""
    wanted = set(needs)
    manager = vcenter.content.authorizationManager
    session = vcenter.content.sessionManager.currentSession.key
    known = {str(p.privId) for p in manager.privilegeList}
    verdicts: dict[str, Verdict] = {}
    for scope in Scope:
        asked = [p for p in PRIVILEGES if p.scope is scope and p.need in wanted]
        objects = _objects(vcenter, scope) if asked else {}
        lacking = _lacking(manager, session, objects, [p.id for p in asked if p.id in known or not known])
        for privilege in asked:
            names = tuple(sorted(lacking.get(privilege.id, ())))
            verdicts[privilege.id] = Verdict(privilege, len(objects), names, privilege.id in known or not known)
    return [verdicts[p.id] for p in PRIVILEGES if p.id in verdicts]


def _lacking(
    manager: Any, session: str, objects: Mapping[str, tuple[Any, str]], privileges: Sequence[str]
) -> dict[str, list[str]]:
    """Privilege -> names of the objects where the session does not have it."""
    lacking: dict[str, list[str]] = {}
    entities = [entity for entity, _ in objects.values()]
    for start in range(0, len(entities) if privileges else 0, BATCH):
        answer = manager.HasPrivilegeOnEntities(entities[start : start + BATCH], session, list(privileges))
        for one in answer or ():
            for available in one.privAvailability:
                if not available.isGranted:
                    lacking.setdefault(str(available.privId), []).append(objects[moid(one.entity)][1])
    return lacking


def _objects(vcenter: Vcenter, scope: Scope) -> dict[str, tuple[Any, str]]:
    """Managed object id -> object and name, of all that the user sees of a scope."""
    if scope is Scope.GLOBAL:
        root = vcenter.content.rootFolder
        return {moid(root): (root, "the vCenter object")}
    # Folders hold data centres, hosts, networks or machines.
    paths = ("name", "childType") if scope is Scope.FOLDER else ("name",)
    found = collector.find(vcenter, _KINDS[scope], paths)
    if scope is Scope.FOLDER:
        found = [one for one in found if "VirtualMachine" in (one.get("childType") or ())]
    return {one.id: (one.object, str(one.get("name"))) for one in found}


_KINDS = {
    Scope.MACHINE: vim.VirtualMachine,
    Scope.FOLDER: vim.Folder,
    Scope.POOL: vim.ResourcePool,
    Scope.DATASTORE: vim.Datastore,
    Scope.NETWORK: vim.Network,
}
