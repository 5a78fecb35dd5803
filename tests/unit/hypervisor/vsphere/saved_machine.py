"""A machine with one of everything, as ``configuration`` saves it."""

import json
from typing import Any

from proxy.hypervisor.vsphere import configuration
from proxy.hypervisor.vsphere.configuration import KIND, Saved
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import Surroundings, disks
from proxy.hypervisor.vsphere.inventory import Machine
from proxy.hypervisor.vsphere.tags import Tag
from proxy.model import MachineConfiguration, PowerState, VirtualMachine
from proxy.units import GiB
from tests.unit.hypervisor.vsphere.vim_objects import LUN1, D, disk, flat, found, nic, raw, scsi

IDENTITY = "502a1b2c-0000-1111-2222-333344445555"
BIOS = "422a1b2c-0000-1111-2222-333344445555"

PORT = D.VirtualEthernetCard.DistributedVirtualPortBackingInfo(
    port=vim.dvs.PortConnection(portgroupKey="dvportgroup-7", switchUuid="50 2a")
)


def every_device() -> list[Any]:
    return [
        D.VirtualIDEController(key=200, busNumber=0),
        D.VirtualPCIController(key=100, busNumber=0),
        D.VirtualKeyboard(key=600),
        D.VirtualVideoCard(key=500, videoRamSizeInKB=4096),
        D.VirtualVMCIDevice(key=12000),
        scsi(),
        D.VirtualNVMEController(key=31000, busNumber=0, controllerKey=100),
        disk(flat(uuid="6000C29a", parent=flat("[LUN1] web/base.vmdk", thinProvisioned=False, eagerlyScrub=True))),
        disk(flat("[LUN1] web/web_2.vmdk"), controller=31000, unit=0, key=32000, size=GiB + 512),
        disk(raw("physicalMode"), unit=1, key=2001),
        nic(),
        nic(4001, "00:50:56:01:02:03", PORT, "manual"),
        D.VirtualCdrom(
            key=3000, controllerKey=200, unitNumber=0, backing=D.VirtualCdrom.IsoBackingInfo(fileName="[x] a.iso")
        ),
        D.VirtualTPM(key=11000, deviceInfo=vim.Description(label="Virtual TPM", summary="x")),
        D.VirtualSerialPort(
            key=9000, backing=D.VirtualSerialPort.DeviceBackingInfo(deviceName="/dev/char/serial/uart0")
        ),
        D.VirtualUSBXHCIController(key=14000, busNumber=0),
    ]


def config(**changed: Any) -> Any:
    boot = vim.vm.BootOptions
    extra = {
        "disk.EnableUUID": "TRUE",
        "RemoteDisplay.vnc.password": "geheim",
        "guestinfo.userdata": "I2Nsb3VkLWNvbmZpZw==",
        "nvram": "web.nvram",
        "scsi0:0.ctkEnabled": "true",
        "migrate.hostLog": "x",
        "sched.cpu.latencySensitivity": "high",
    }
    given = {
        "name": "web",
        "uuid": BIOS,
        "instanceUuid": IDENTITY,
        "version": "vmx-19",
        "guestId": "debian12_64Guest",
        "guestFullName": "Debian 12",
        "annotation": "the shop",
        "firmware": "efi",
        "template": False,
        "changeTrackingEnabled": True,
        "memoryHotAddEnabled": True,
        "files": vim.vm.FileInfo(vmPathName="[LUN1] web/web.vmx"),
        "flags": vim.vm.FlagInfo(virtualMmuUsage="automatic"),
        "defaultPowerOps": vim.vm.DefaultPowerOpInfo(powerOffType="soft"),
        "cpuAllocation": vim.ResourceAllocationInfo(reservation=500, shares=vim.SharesInfo(level="high", shares=4000)),
        "bootOptions": boot(
            efiSecureBootEnabled=True,
            bootOrder=[
                boot.BootableDiskDevice(deviceKey=2000),
                boot.BootableEthernetDevice(deviceKey=4000),
                boot.BootableDiskDevice(deviceKey=2001),
                boot.BootableCdromDevice(),
            ],
        ),
        "tools": vim.vm.ToolsConfigInfo(toolsVersion=12352, syncTimeWithHost=True, toolsUpgradePolicy="manual"),
        "extraConfig": [vim.option.OptionValue(key=key, value=value) for key, value in extra.items()],
        "hardware": vim.vm.VirtualHardware(numCPU=4, numCoresPerSocket=2, memoryMB=8192, device=every_device()),
    }
    return vim.vm.ConfigInfo(**{**given, **changed})


def machine(**changed: Any) -> Machine:
    around = Surroundings("vm-20", False, {LUN1.id: LUN1})
    given = {
        "id": "vm-20",
        "machine": VirtualMachine(IDENTITY, "web", "esx1", PowerState.RUNNING, disks(every_device(), around)),
        "template": False,
        "folder": "/DC0/vm/Prod",
        "pool": "/DC0/host/Cluster1/Resources",
        "cluster": "Cluster1",
        "datacenter": "DC0",
        "datastores": ("LUN1",),
        "tags": (Tag("backup", "gold"),),
        "attributes": {"owner": "team-a"},
        "vmx": "[LUN1] web/web.vmx",
        "hardware": "vmx-19",
        "change_tracking": True,
        "consolidation_needed": False,
    }
    return Machine(**{**given, **changed})


def document(**changed: Any) -> dict[str, Any]:
    whole = found(vim.VirtualMachine, "vm-20", {"config": config(**changed)})
    made = configuration.describe("vcenter1", machine(), whole, {"dvportgroup-7": "prod-net"})
    made["nvram"] = {"path": configuration.nvram_path(whole), "missing": ""}
    return made


def saved(**changed: Any) -> Saved:
    return configuration.parse(MachineConfiguration(KIND, json.dumps(document(**changed))))
