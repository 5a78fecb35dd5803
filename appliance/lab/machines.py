"""The lab's machines: what disks they have, and the domain XML that libvirt gets.

==========  =====================================================================
raw-lun     vda: raw bytes on LUN 1
qcow2-lun   vda: qcow2 on LUN 2 (bitmaps and data lie on the LUN)
two-disks   vda: raw on LUN 3, vdb: qcow2 on LUN 4, mounted at /mnt/vdb
powered-off vda: raw on LUN 5, defined and never started by the lab
qcow2-file  vda: a qcow2 file in the shared directory
==========  =====================================================================
"""

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from appliance.lab.array import HOSTS, PORTALS, Array
from appliance.lab.guest import DATA_SIZE, SYSTEM_SIZE, GuestImage
from appliance.lab.hosts import disk_authentication
from proxy import command
from proxy.errors import ConfigurationError
from proxy.units import MiB

# Enough for kernel, busybox and agent, and several machines fit into a small test machine.
MEMORY_MIB = 192

# What costs time under software emulation and has no use in a lab is left out: a seventh of the boot's processor time.
_KERNEL_WORDS = "console=ttyS0 quiet mitigations=off nokaslr lsm= no_timer_check tsc=reliable cryptomgr.notests"

# A qcow2 on a LUN needs room for its metadata and persistent bitmaps beside the guest's bytes.
QCOW2_ROOM = 64 * MiB


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: target name, content of the guest image (``system``/``data``), format, LUN number or 0 for a file."""

    key: str
    content: str
    format: str
    lun: int

    @property
    def lun_size(self) -> int:
        """Bytes of the LUN that it needs."""
        size = SYSTEM_SIZE if self.content == "system" else DATA_SIZE
        return size + (QCOW2_ROOM if self.format == "qcow2" else 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the lab by name, and its disks."""

    name: str
    disks: tuple[Disk, ...]


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("raw-lun", (Disk("vda", "system", "raw", 1),)),
        Machine("qcow2-lun", (Disk("vda", "system", "qcow2", 2),)),
        Machine("two-disks", (Disk("vda", "system", "raw", 3), Disk("vdb", "data", "qcow2", 4))),
        Machine("powered-off", (Disk("vda", "system", "raw", 5),)),
        Machine("qcow2-file", (Disk("vda", "system", "qcow2", 0),)),
    )
}


_FLEET_LUNS = 20
"""Above those of the lab's own machines and of what tests add."""


def machine_named(name: str) -> Machine:
    """Raises ``ConfigurationError`` with the names that there are."""
    try:
        return MACHINES[name]
    except KeyError:
        raise ConfigurationError("lab", f"has no machine {name!r}", hint=f"it has {', '.join(MACHINES)}") from None


def fleet(count: int) -> list[Machine]:
    """So many machines with one raw disk each, on LUNs of their own: for what takes many."""
    return [Machine(f"fleet-{n:02}", (Disk("vda", "system", "raw", _FLEET_LUNS + n),)) for n in range(1, count + 1)]


def make_disks(machine: Machine, array: Array, image: GuestImage, shared: Path) -> None:
    """Create the machine's LUNs or files, filled from the guest image."""
    for disk in machine.disks:
        content = image.disk(disk.content, disk.format)
        if disk.lun:
            array.add_lun(disk.lun_size, number=disk.lun, content=content)
        else:
            command.run(["cp", "--reflink=auto", content, file_of(machine, disk, shared)], timeout=60)


def file_of(machine: Machine, disk: Disk, shared: Path) -> Path:
    """Where a disk that is a file lies."""
    return shared / f"{machine.name}-{disk.key}.{disk.format}"


def domain_xml(machine: Machine, *, array: Array, boot: GuestImage, shared: Path, console: Path, kvm: bool) -> str:
    """The libvirt definition. ``boot``: kernel and initrd under paths that all hosts see; ``console``: log file."""
    disks = "\n".join(_disk_xml(machine, disk, array, shared) for disk in machine.disks)
    return f"""\
<domain type='{"kvm" if kvm else "qemu"}'>
  <name>{machine.name}</name>
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{escape(str(boot.kernel))}</kernel>
    <initrd>{escape(str(boot.initrd))}</initrd>
    <cmdline>{_KERNEL_WORDS}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='{"host-passthrough" if kvm else "maximum"}'/>
  <devices>
{disks}
    <controller type='usb' model='none'/>
    <interface type='user'><model type='virtio'/></interface>
    <serial type='file'><source path={quoteattr(str(console))} append='on'/><target port='0'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def _disk_xml(machine: Machine, disk: Disk, array: Array, shared: Path) -> str:
    driver = f"<driver name='qemu' type='{disk.format}' cache='none' discard='unmap'/>"
    target = f"<target dev='{disk.key}' bus='virtio'/>"
    if not disk.lun:
        source = f"<source file={quoteattr(str(file_of(machine, disk, shared)))}/>"
        return f"    <disk type='file' device='disk'>{driver}{source}{target}</disk>"
    return f"""\
    <disk type='network' device='disk'>
      {driver}
      {disk_authentication()}
      <source protocol='iscsi' name='{HOSTS.iqn}/{disk.lun}'>
        <host name='{PORTALS[0]}' port='{array.port}'/>
        <initiator><iqn name='iqn.2026-01.lab.machine:{machine.name}'/></initiator>
      </source>
      {target}
    </disk>"""
