"""The way without a SAN (pull mode over a socket and over TLS), and machines defined from saved configurations."""

import json
from xml.etree import ElementTree

import pytest

from appliance.lab.array import HOSTS
from proxy import command
from proxy.errors import MachineBusy, RestoreRefused, SnapshotBroken
from proxy.model import Consistency, MachineConfiguration, PowerState, QuiescePolicy, Tracking
from proxy.ports import DiskPlace, NewMachine

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-img", "nbdcopy", "nbdinfo")]

NEW = "11111111-2222-4333-8444-555555555555"


def export_of(frozen, to):
    """All bytes of an NBD export, and what its bitmap says (``None`` without one)."""
    where = frozen.layers[0].location
    uri = where.uri
    if where.tls_directory:
        uri += f"?tls-certificates={where.tls_directory}"
    command.run(["nbdcopy", uri, to], timeout=60)
    changes = None
    if where.bitmap:
        words = ["nbdinfo", f"--map={where.bitmap}", "--json", uri]
        changes = command.run(words, timeout=30).text
    return to.read_bytes(), changes


@pytest.mark.parametrize("network", [False, True], ids=["socket", "tls"])
def test_pull_mode_serves_a_frozen_disk_and_what_changed(bench, tmp_path, network):
    bench.use("qcow2-lun")
    settings = {"nbd_address": "127.0.0.1", "tls_directory": str(bench.lab.client_certificates)} if network else {}
    site = bench.new_site(tmp_path / "pull", **settings)
    first = site.snapshot(bench.request("qcow2-lun", pull=True))
    full, nothing = export_of(first.disks[0], tmp_path / "full")
    site.confirm(first)
    site.release(first, sealed=True)
    assert nothing is None and first.consistency is Consistency.APPLICATION
    assert bench.guest_state("qcow2-lun") == "thawed"
    bench.writes_go_on("qcow2-lun")
    second = site.snapshot(bench.request("qcow2-lun", pull=True, since={"vda": first.disks[0].change_id}))
    with pytest.raises(MachineBusy):
        site.snapshot(bench.request("qcow2-lun", pull=True))
    after, changes = export_of(second.disks[0], tmp_path / "after")
    dirty = [(e["offset"], e["length"]) for e in json.loads(changes) if e["type"] & 1]
    rebuilt = bytearray(full)
    for start, length in dirty:
        rebuilt[start : start + length] = after[start : start + length]
    site.release(second, sealed=True)
    assert second.disks[0].tracking is Tracking.IMAGE
    assert 0 < sum(length for _, length in dirty) < len(full) / 4
    assert rebuilt == after
    with pytest.raises(SnapshotBroken):
        site.confirm(second)
    site.close()


def test_pull_mode_of_a_raw_disk_is_a_full_one(bench, tmp_path):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun", pull=True, since={"vda": "lanfree-nonsense"})
    try:
        (disk,) = snapshot.disks
        assert (disk.tracking, disk.change_id) == (Tracking.NONE, None)
        data, changes = export_of(disk, tmp_path / "raw")
    finally:
        bench.site.release(snapshot, sealed=False)
    assert len(data) == disk.size and changes is None


def test_the_saved_configuration_has_no_trace_of_the_snapshot_and_no_secret(bench):
    bench.use()
    if bench.virsh("two-disks", "domstate", "two-disks").strip() == "shut off":
        bench.virsh("two-disks", "start", "two-disks", "--paused")  # it need not have booted
    before = bench.site.configuration(bench.id("two-disks"))
    snapshot = bench.take("two-disks", "vda", "vdb", quiesce=QuiescePolicy.NEVER)
    during = bench.site.configuration(snapshot.machine)
    bench.site.release(snapshot, sealed=False)

    def sources(configuration):
        disks = ElementTree.fromstring(configuration.text).findall("devices/disk")
        return [(d.get("type"), d.find("driver").get("type"), d.find("source").get("name")) for d in disks]

    assert sources(before) == sources(during)
    assert snapshot.run not in during.text and "backingStore" not in during.text
    assert bench.lab.array.secret_file(HOSTS).read_text().strip() not in during.text
    bench.use()
    bench.lab.stop("two-disks")


def test_a_machine_is_defined_anew_beside_the_old_one(bench):
    bench.use()
    lun = bench.lab.array.add_lun(bench.lun(1).stat().st_size)
    old = bench.site.configuration(bench.id("raw-lun"))
    place = DiskPlace(target="iqn.2026-01.lab.san:hosts", lun=lun.number, portal=f"127.0.0.1:{bench.lab.array.port}")
    made = bench.site.define(old, NewMachine("restored", "h2", {"vda": place}, identity=NEW))
    h2 = bench.lab.host("h2")
    try:
        text = h2.virsh("dumpxml", "restored", "--inactive").text
        assert (made.id, made.host, made.state) == (NEW, "h2", PowerState.OFF)
        assert made.disks[0].location.lun == lun.number
        root, saved = ElementTree.fromstring(text), ElementTree.fromstring(old.text)
        assert root.find("devices/interface/mac").get("address") != saved.find("devices/interface/mac").get("address")
        assert root.find("devices/interface/link").get("state") == "down"
        assert root.find("devices/disk//secret").get("usage") == saved.find("devices/disk//secret").get("usage")
        h2.virsh("start", "restored", "--paused")  # its disk opens: portal, LUN and secret are right
        with pytest.raises(RestoreRefused, match="not off"):
            bench.site.define(old, NewMachine("restored", "h2", {"vda": place}, identity=NEW))
    finally:
        h2.virsh("destroy", "restored", check=False)
        h2.virsh("undefine", "restored")
        bench.lab.array.remove_lun(lun.number)


def test_a_name_or_identity_in_use_is_refused(bench):
    bench.use("raw-lun")
    old = bench.site.configuration(bench.id("raw-lun"))
    with pytest.raises(RestoreRefused, match="not off"):
        bench.site.define(old, NewMachine("raw-lun", "h1", {}))
    with pytest.raises(RestoreRefused, match="another machine of that name"):
        bench.site.define(old, NewMachine("qcow2-lun", "h1", {}, identity=NEW))
    with pytest.raises(RestoreRefused, match="defined on h1"):
        bench.site.define(bench.site.configuration(bench.id("powered-off")), NewMachine("powered-off", "h2", {}))
    with pytest.raises(RestoreRefused, match="h7"):
        bench.site.define(old, NewMachine("x", "h7", {}, identity=NEW))


def test_firmware_variables_travel_with_the_configuration(bench, tmp_path):
    bench.use()
    h1 = bench.lab.host("h1")
    directory = tmp_path / "nvram"
    directory.mkdir()
    (directory / "loader.fd").write_bytes(bytes(4096))
    (directory / "vars.fd").write_bytes(b"boot order" + bytes(4086))
    parts = f"<loader readonly='yes' type='pflash'>{directory}/loader.fd</loader><nvram>{directory}/vars.fd</nvram>"
    text = f"""<domain type='qemu'><name>efi</name><memory unit='MiB'>64</memory>
      <os><type arch='x86_64' machine='q35'>hvm</type>{parts}</os><features><acpi/></features>
      <devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""
    (tmp_path / "efi.xml").write_text(text)
    h1.virsh("define", tmp_path / "efi.xml")
    try:
        saved = bench.site.configuration(bench.id("efi"))
        assert saved.nvram == (directory / "vars.fd").read_bytes()
        bench.site.define(saved, NewMachine("efi2", "h1", {}, identity=NEW))
        (copy,) = [f for f in directory.iterdir() if f.name.startswith("efi2-")]
        assert copy.read_bytes() == saved.nvram
        again = MachineConfiguration(saved.kind, saved.text, b"older" + bytes(4091))
        bench.site.define(again, NewMachine("efi", "h1", {}))
        assert (directory / "vars.fd").read_bytes() == again.nvram
    finally:
        for name in ("efi", "efi2"):
            h1.virsh("undefine", name, "--keep-nvram", check=False)
