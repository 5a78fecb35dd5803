"""The simulated vCenter does what the tests on it rely on: seen by pyVmomi, by the LUN's reader, and by qemu-img."""

import hashlib
import http.client
import random
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pyVmomi import vim, vmodl

from proxy.model import DeviceAddress
from proxy.transport.san import LunSource
from proxy.transport.vmdk import open_vmdk
from proxy.transport.vmfs import Subject, VmfsFile, open_datastore
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.vcsim_client import (
    Client,
    areas,
    connected,
    disks,
    done,
    ended,
    failed,
)
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go", "qemu-img"), pytest.mark.timeout(300)]

SUBJECT = Subject("test", "disk")
FIRST, SECOND = "scsi0:0", "scsi0:1"
KEY = {FIRST: 2000, SECOND: 2001}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("vcsim")) as made:
        yield made


@pytest.fixture
def client(lab: VcsimLab) -> Iterator[Client]:
    """After each test no fault is set and no snapshot left."""
    with connected(lab) as made:
        yield made
    lab.mend()
    with connected(lab) as again:
        for name in ("web", "db"):
            done(again.vm(name).RemoveAllSnapshots_Task())
            done(again.vm(name).ConsolidateVMDisks_Task())


def on_the_lun(lab: VcsimLab, path: str, size: int) -> bytes:
    """A disk by its descriptor's path, read over iSCSI by the product's readers of VMFS and VMDK."""
    fabric = lab.fabric()
    luns = [LunSource(fabric.open(DeviceAddress("/dev/none", name))) for name in lab.names["san1"]]
    try:
        datastore = open_datastore(luns, SUBJECT, uuid=lab.uuids["san1"])
        with open_vmdk(lambda file: VmfsFile(datastore, file), path, SUBJECT) as source:
            assert source.size == size
            data = bytearray(size)
            source.read_into(0, memoryview(data))
            return bytes(data)
    finally:
        for lun in luns:
            lun.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- what vCenter shows


def test_the_datastore_names_the_volume_and_the_lun_as_both_name_themselves(lab: VcsimLab, client: Client) -> None:
    shown = next(d for d in client.all(vim.Datastore) if d.name == "san1").info.vmfs
    assert shown.uuid == lab.uuids["san1"]
    assert [(e.diskName, e.partition) for e in shown.extent] == [(lab.names["san1"][0], 1)]
    data = on_the_lun(lab, "web/web.vmdk", 64 * MiB)  # finds the LUN by that name and the volume by that UUID
    assert sha256(data) == lab.digest("web", FIRST)


def test_machines_have_their_identity_and_their_disks(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")
    assert web.config.instanceUuid == lab.instance_uuid("web")
    assert {k: b.fileName for k, b in disks(web.config).items()} == {
        2000: "[san1] web/web.vmdk",
        2001: "[san1] web/web_1.vmdk",
    }
    assert web.parent.name == "prod"
    assert web.guest.toolsRunningStatus == "guestToolsRunning"
    assert client.vm("db").config.guestId == "windows2019srv_64Guest"


def test_a_wrong_password_is_refused(lab: VcsimLab) -> None:
    lab.password, right = "wrong", lab.password
    try:
        with pytest.raises(vim.fault.InvalidLogin):
            Client(lab)
    finally:
        lab.password = right


def test_the_certificate_is_the_one_of_the_thumbprint_until_it_is_changed(lab: VcsimLab) -> None:
    def seen() -> str:
        return sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((lab.host, lab.port))))

    before = lab.thumbprint
    assert seen() == before
    assert lab.new_certificate() == seen() != before


# -- disks and snapshots


@pytest.mark.parametrize(
    ("machine", "disk", "path"), [("web", FIRST, "web/web.vmdk"), ("web", SECOND, "web/web_1.vmdk")]
)
def test_a_guest_that_writes_into_holes_and_lazy_blocks_changes_the_lun(
    lab: VcsimLab, client: Client, machine: str, disk: str, path: str
) -> None:
    size = next(d["Size"] for d in lab.machine(machine)["Disks"] if d["Name"] == disk)
    for _ in range(12):
        lab.guest_writes(machine, disk, random.randrange(size - 9000), random.randbytes(9000))
    assert sha256(on_the_lun(lab, path, size)) == lab.digest(machine, disk)


def test_a_snapshot_freezes_the_lun_and_its_removal_brings_the_writes_there(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")
    before = lab.digest("web", FIRST)
    snapshot = client.snapshot(web)
    lab.guest_writes("web", FIRST, 7 * MiB - 100, b"while frozen " * 1000)
    assert {k: (b.fileName, b.parent.fileName) for k, b in disks(web.config).items()} == {
        2000: ("[san1] web/web-000001.vmdk", "[san1] web/web.vmdk"),
        2001: ("[san1] web/web_1-000001.vmdk", "[san1] web/web_1.vmdk"),
    }
    assert {b.fileName for b in disks(snapshot.config).values()} == {"[san1] web/web.vmdk", "[san1] web/web_1.vmdk"}
    assert sha256(on_the_lun(lab, "web/web.vmdk", 64 * MiB)) == before == lab.digest("web", FIRST, snapshot._moId)
    after = lab.digest("web", FIRST)
    assert after != before
    client.remove(snapshot)
    assert web.snapshot is None
    assert {b.fileName for b in disks(web.config).values()} == {"[san1] web/web.vmdk", "[san1] web/web_1.vmdk"}
    assert sha256(on_the_lun(lab, "web/web.vmdk", 64 * MiB)) == after == lab.digest("web", FIRST)


def test_a_delta_that_a_second_snapshot_freezes_is_read_from_the_lun(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")
    theirs = client.snapshot(web, name="somebody's")
    for _ in range(9):
        lab.guest_writes("web", FIRST, random.randrange(60 * MiB), random.randbytes(5000))
    ours = client.snapshot(web, name="ours")
    lab.guest_writes("web", FIRST, 0, b"newest")
    frozen = disks(ours.config)[2000]
    assert (frozen.fileName, frozen.parent.fileName) == ("[san1] web/web-000001.vmdk", "[san1] web/web.vmdk")
    data = on_the_lun(lab, "web/web-000001.vmdk", 64 * MiB)
    assert sha256(data) == lab.digest("web", FIRST, ours._moId)
    newest = lab.digest("web", FIRST)
    client.remove(theirs)  # the older one first: its delta goes into the base
    assert disks(ours.config)[2000].fileName == "[san1] web/web.vmdk"
    assert sha256(on_the_lun(lab, "web/web.vmdk", 64 * MiB)) == sha256(data)
    client.remove(ours)
    assert sha256(on_the_lun(lab, "web/web.vmdk", 64 * MiB)) == newest


def test_a_removal_that_leaves_the_chain_is_mended_by_consolidation(lab: VcsimLab, client: Client) -> None:
    db = client.vm("db")
    lab.fault("consolidation-needed", times=1)
    snapshot = client.snapshot(db)
    lab.guest_writes("db", FIRST, MiB, b"written meanwhile")
    client.remove(snapshot)
    assert db.runtime.consolidationNeeded
    assert len(lab.machine("db")["Disks"][0]["Files"]) == 2
    done(db.ConsolidateVMDisks_Task())
    assert not db.runtime.consolidationNeeded
    assert sha256(on_the_lun(lab, "db/db.vmdk", 48 * MiB)) == lab.digest("db", FIRST)


def test_the_lock_of_a_disk_tells_who_has_it_open(lab: VcsimLab, client: Client) -> None:
    def mode() -> int:
        luns = [LunSource(lab.fabric().open(DeviceAddress("/dev/none", name))) for name in lab.names["san1"]]
        with ExitStack() as closing:
            for lun in luns:
                closing.callback(lun.close)
            datastore = open_datastore(luns, SUBJECT, uuid=lab.uuids["san1"])
            return VmfsFile(datastore, "web/web-flat.vmdk").file.lock_mode

    assert mode() == 1, "the machine writes to it"
    snapshot = client.snapshot(client.vm("web"))
    assert mode() == 2, "it is read-only below the delta"
    client.remove(snapshot)
    assert mode() == 1


def test_a_disk_that_was_grown_is_larger_on_the_lun_too(tmp_path: Path) -> None:
    with VcsimLab(tmp_path, (LabMachine("vm", (LabDisk(size=90 * MiB),)),)) as lab, connected(lab) as client:
        machine = client.vm("vm")
        device = next(d for d in machine.config.hardware.device if d.key == 2000)
        device.capacityInBytes, device.capacityInKB = 123 * MiB, 123 * 1024
        edit = vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)
        done(machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[edit])))
        lab.guest_writes("vm", FIRST, 123 * MiB - 5, b"the end"[:5])
        assert lab.machine("vm")["Disks"][0]["Size"] == 123 * MiB
        assert sha256(on_the_lun(lab, "vm/vm.vmdk", 123 * MiB)) == lab.digest("vm", FIRST)


# -- change tracking


def test_changes_between_two_snapshots_are_told(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")
    client.track(web)
    first = client.snapshot(web)
    since = disks(first.config)[2000].changeId
    assert since.rpartition("/")[2].isdecimal()
    lab.guest_writes("web", FIRST, 10 * MiB + 5, b"x" * 70000)  # into the delta
    client.remove(first)
    lab.guest_writes("web", FIRST, 20 * MiB, b"y")  # into the base
    second = client.snapshot(web)
    lab.guest_writes("web", FIRST, 30 * MiB, b"z")  # after it
    assert areas(web, 2000, since, second) == [(10 * MiB, 131072), (20 * MiB, 65536)]
    assert areas(web, 2001, disks(second.config)[2001].changeId, second) == []
    with pytest.raises(vmodl.fault.InvalidArgument):
        areas(web, 2000, disks(web.config)[2000].changeId, second)  # the running disk's id lies in the future
    lab.new_epoch("web", FIRST)
    with pytest.raises(vmodl.fault.InvalidArgument):
        areas(web, 2000, since, second)


def test_a_page_has_a_limited_number_of_areas(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")
    client.track(web)
    first = client.snapshot(web)
    since = disks(first.config)[2001].changeId
    written = sorted(random.sample(range(0, 40 * 16, 2), 25))
    for grain in written:
        lab.guest_writes("web", SECOND, grain * 65536, b"!")
    client.remove(first)
    second = client.snapshot(web)
    lab.fault("areas-limit", value=7)
    lab.counters(reset=True)
    assert areas(web, 2001, since, second) == [(grain * 65536, 65536) for grain in written]
    assert lab.counters()["Calls"]["QueryChangedDiskAreas"] == 4
    lab.fault("tracking-lies", value=3)
    told = areas(web, 2001, since, second)
    assert len(told) == 24
    assert (written[3] * 65536, 65536) not in told


def test_allocated_areas_are_the_data_blocks_of_the_map(lab: VcsimLab, client: Client) -> None:
    db = client.vm("db")
    client.track(db)
    assert areas(db, 2000, "*", client.snapshot(db)) == [(0, 48 * MiB)]
    web = client.vm("web")
    client.track(web)
    found = areas(web, 2001, "*", client.snapshot(web))
    assert 0 < sum(length for _, length in found) < 40 * MiB
    holes = bytearray(lab.truth("web", SECOND, 0, 40 * MiB))
    for start, length in found:
        holes[start : start + length] = bytes(length)
    assert not any(holes), "data outside of what is called allocated"


def test_tracking_needs_a_machine_without_snapshots(tmp_path: Path) -> None:
    with VcsimLab(tmp_path, (LabMachine("vm"),)) as lab, connected(lab) as client:
        machine = client.vm("vm")
        first = client.snapshot(machine)
        assert not disks(first.config)[2000].changeId
        client.track(machine)
        second = client.snapshot(machine)
        assert not disks(second.config)[2000].changeId, "there was a snapshot when it was switched on"
        with pytest.raises(vim.fault.FileFault):
            areas(machine, 2000, "*", second)
        done(machine.RemoveAllSnapshots_Task())
        assert disks(client.snapshot(machine).config)[2000].changeId


# -- faults


def test_quiescing_needs_tools_and_can_time_out(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")
    lab.fault("quiesce-timeout", machine="web")
    task = web.CreateSnapshotEx_Task(
        name="q", description="", memory=False, quiesceSpec=vim.vm.GuestQuiesceSpec(timeout=5)
    )
    assert failed(task) == "FilesystemQuiesceFault"
    windows = vim.vm.WindowsQuiesceSpec(vssBackupType=1, vssBackupContext="ctx_auto")
    assert failed(web.CreateSnapshotEx_Task("q", "", False, windows)) == "ApplicationQuiesceFault"
    assert web.snapshot is None
    client.snapshot(client.vm("db"), quiesce=windows)  # another machine's


def test_a_snapshot_is_refused_as_often_as_was_said(lab: VcsimLab, client: Client) -> None:
    lab.fault("snapshot-refused", machine="db", times=2)
    db = client.vm("db")
    for _ in range(2):
        assert failed(db.CreateSnapshot_Task("x", "", False, False)) == "SnapshotFault"
    done(db.CreateSnapshot_Task("x", "", False, False))


def test_an_expired_session_must_log_in_again(lab: VcsimLab, client: Client) -> None:
    assert client.vm("web").name == "web"
    lab.expire_sessions()
    with pytest.raises(vim.fault.NotAuthenticated):
        client.vm("web")
    client.content.sessionManager.Login(lab.user, lab.password)
    assert client.vm("web").name == "web"


def test_a_restarted_vcenter_keeps_machines_and_snapshots_and_no_session(lab: VcsimLab, client: Client) -> None:
    made = client.snapshot(client.vm("web"))
    port = lab.port
    lab.restart_vcenter(0.2)
    assert lab.machine("web")["Snapshots"] == [made._moId]
    with connected(lab) as again:
        assert lab.port == port
        assert again.vm("web").snapshot.currentSnapshot._moId == made._moId
    with pytest.raises(OSError):
        client.vm("web")  # on the connection that broke
    with pytest.raises(vim.fault.NotAuthenticated):
        client.vm("web")


def test_relocation_is_disabled_by_source(lab: VcsimLab, client: Client) -> None:
    web = client.vm("web")

    def call(method: str, source: str) -> None:
        """The internal interface is not pyVmomi's: the envelope as govmomi writes it."""
        methods = "<method>RelocateVM_Task</method>"
        asked = f"<method>{methods}<reasonId>backup</reasonId></method>" if method == "DisableMethods" else methods
        manager = client.content.authorizationManager._moId
        body = (
            '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
            f'<{method} xmlns="urn:internalvim25"><_this type="AuthorizationManager">{manager}</_this>'
            f'<entity type="VirtualMachine">{web._moId}</entity>{asked}<sourceId>{source}</sourceId></{method}>'
            "</soapenv:Body></soapenv:Envelope>"
        )
        stub = client.service._stub
        connection = http.client.HTTPSConnection(lab.host, lab.port, context=ssl._create_unverified_context())
        connection.request("POST", "/sdk", body, {"Cookie": stub.cookie, "SOAPAction": "urn:internalvim25/8.0"})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == 200, said
        assert f"{method}Response".encode() in said

    call("DisableMethods", "one")
    call("DisableMethods", "other")
    assert list(web.disabledMethod) == ["RelocateVM_Task"]
    with pytest.raises(vim.fault.MethodDisabled):
        web.RelocateVM_Task(vim.vm.RelocateSpec())
    call("EnableMethods", "one")
    with pytest.raises(vim.fault.MethodDisabled):
        web.RelocateVM_Task(vim.vm.RelocateSpec())
    call("EnableMethods", "other")
    assert list(web.disabledMethod) == []
    assert ended(web.RelocateVM_Task(vim.vm.RelocateSpec())).state == "success"


# -- other set-ups


def test_two_labs_run_at_once_and_nothing_of_them_is_left(tmp_path: Path) -> None:
    kinds = (LabDatastore("san1", extents=(2, 1)), LabDatastore("nfs1", "NFS", ()), LabDatastore("v", "vsan", ()))
    odd = (
        LabMachine("template", template=True, disks=(LabDisk(datastore="nfs1", layout="empty"),), datastore="nfs1"),
        LabMachine(
            "off", power="poweredOff", disks=(LabDisk("nvme0:0"), LabDisk("sata0:2", mode="independent_persistent"))
        ),
        LabMachine(
            "asleep", power="suspended", disks=(LabDisk(layout="thick", size=300 * MiB),), attributes={"owner": "ops"}
        ),
        LabMachine("mapped", disks=(LabDisk(), LabDisk(SECOND, rdm="physicalMode"))),
    )
    with VcsimLab(tmp_path / "one") as one, VcsimLab(tmp_path / "two", odd, kinds) as two, connected(two) as client:
        assert {one.uuids["san1"]}.isdisjoint(two.uuids.values())
        states = {vm.name: (vm.runtime.powerState, vm.config.template) for vm in client.all(vim.VirtualMachine)}
        assert states == {
            "template": ("poweredOff", True),
            "off": ("poweredOff", False),
            "asleep": ("suspended", False),
            "mapped": ("poweredOn", False),
        }
        kind_of = {d.name: d.summary.type for d in client.all(vim.Datastore)}
        assert (kind_of["san1"], kind_of["nfs1"], kind_of["v"]) == ("VMFS", "NFS", "vsan")
        assert len(next(d for d in client.all(vim.Datastore) if d.name == "san1").info.vmfs.extent) == 2
        assert sha256(on_the_lun(two, "asleep/asleep.vmdk", 300 * MiB)) == two.digest("asleep", FIRST)
        snapshot = client.snapshot(client.vm("mapped"))
        assert [d["Files"] for d in two.machine("mapped")["Disks"]] == [
            ["[san1] mapped/mapped.vmdk", "[san1] mapped/mapped-000001.vmdk"],
            ["[san1] mapped/mapped_1.vmdk"],
        ]
        client.remove(snapshot)
        processes = [lab._process for lab in (one, two)]
    assert all(process is not None and process.poll() is not None for process in processes)
