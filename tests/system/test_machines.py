"""Every kind of machine that the lab has, backed up and restored by the product's own commands."""

import hashlib
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.lab.array import HOSTS
from appliance.lab.guest import DATA_SIZE, SYSTEM_SIZE
from appliance.lab.lab import Lab

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64", "nbdkit")]

Left = Callable[[], list[str]]


def digest_of_raw(path: Path, form: str = "raw", tmp_path: Path | None = None) -> str:
    """SHA-256 of a disk's bytes as the guest sees them, read on the array's side without any of our code."""
    if form != "raw":
        assert tmp_path is not None
        flat = tmp_path / "flat.raw"
        subprocess.run(["qemu-img", "convert", "-U", "-f", form, "-O", "raw", str(path), str(flat)], check=True)
        path = flat
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_machines_are_listed_with_what_cannot_be_known_of_them_left_out(lab: Lab, product: Any) -> None:
    machines = {machine["name"]: machine for machine in product.good("vm", "list")["machines"]}
    assert set(machines) == {"raw-lun", "qcow2-lun", "two-disks", "qcow2-file", "powered-off"}
    assert machines["raw-lun"]["state"] == "running"
    assert machines["powered-off"]["state"] == "off"
    assert [disk["key"] for disk in machines["two-disks"]["disks"]] == ["vda", "vdb"]
    assert machines["qcow2-lun"]["disks"][0]["format"] == "qcow2"


def test_a_powered_off_machine_is_backed_up_and_restored_byte_by_byte(
    lab: Lab, product: Any, left_on_hosts: Left
) -> None:
    point = product.good("backup", "powered-off")[0]["point"]
    assert point["images"][0]["transport"] == "san"
    lun = lab.array.add_lun(SYSTEM_SIZE)
    try:
        place = f"vda={HOSTS.iqn}/{lun.number}"
        restored = product.good("restore", point["id"], "--disk", place, "--as", "cold-copy", "--host", "h2")
        assert restored["machine"]["host"] == "h2"
        assert digest_of_raw(lun.path) == digest_of_raw(lab.array.lun(5).path)
        xml = lab.host("h2").virsh("dumpxml", "cold-copy").text
        assert restored["machine"]["id"] in xml
        assert "/overlays/" not in xml
    finally:
        lab.host("h2").virsh("undefine", "cold-copy", "--nvram", check=False)
        lab.array.remove_lun(lun.number)
    assert left_on_hosts() == []


def test_a_killed_restore_is_never_gone_on_with_by_itself(lab: Lab, product: Any, until: Callable[..., None]) -> None:
    point = product.good("backup", "powered-off")[0]["point"]["id"]
    lun = lab.array.add_lun(SYSTEM_SIZE)
    try:
        words = ("restore", point, "--disk", f"vda={HOSTS.iqn}/{lun.number}", "--disks-only")
        process = product.start(*words)
        until(lambda: process.poll() is not None or lun.allocated > 0)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = digest_of_raw(lun.path)
        remarks = product.good("sweep")["remarks"]
        assert any("restore" in remark and "incomplete" in remark for remark in remarks), remarks
        assert digest_of_raw(lun.path) == before, "nothing more was written"
        code, document, said = product.run(*words)
        assert code == 1, said
        assert document["error"]["code"] == "restore-refused"
        product.good(*words, "--overwrite")
        assert digest_of_raw(lun.path) == digest_of_raw(lab.array.lun(5).path)
    finally:
        lab.array.remove_lun(lun.number)


def test_an_unchanged_powered_off_machine_stores_nothing_new(lab: Lab, product: Any) -> None:
    product.good("backup", "powered-off")
    point = product.good("backup", "powered-off")[0]["point"]
    assert point["images"][0]["bytes_new"] == 0
    assert point["images"][0]["bytes_stored"] < SYSTEM_SIZE // 1000, "an index of references and nothing else"


def test_two_disks_are_frozen_at_one_moment_and_restored_together(
    lab: Lab, product: Any, left_on_hosts: Left, tmp_path: Path
) -> None:
    lab.start("two-disks")
    try:
        point = product.good("backup", "two-disks")[0]["point"]
    finally:
        lab.shutdown("two-disks")
    assert left_on_hosts() == []
    assert {image["key"] for image in point["images"]} == {"vda", "vdb"}
    assert point["consistency"] == "application"
    luns = {"vda": lab.array.add_lun(SYSTEM_SIZE), "vdb": lab.array.add_lun(DATA_SIZE)}
    try:
        words = [word for key, lun in luns.items() for word in ("--disk", f"{key}={HOSTS.iqn}/{lun.number}")]
        product.good("restore", point["id"], *words, "--as", "two-copy", "--host", "h1")
        system = _cat(luns["vda"].path, "/data/journal", offset=2048 * 512)
        second = _cat(luns["vdb"].path, "/journal")
        marker = _cat(luns["vda"].path, "/data/QUIESCED", offset=2048 * 512)
        lines = system.splitlines()
        assert marker.startswith(b"records=%d " % len(lines)), "the marker on the first disk counts its transactions"
        assert lines[-1] in second.splitlines()[-1:], "the second disk has the same last transaction"
    finally:
        lab.host("h1").virsh("undefine", "two-copy", "--nvram", check=False)
        for lun in luns.values():
            lab.array.remove_lun(lun.number)


def _cat(image: Path, path: str, *, offset: int = 0) -> bytes:
    """A file of an ext4 file system inside an image, by e2fsprogs' own reader."""
    where = f"{image}?offset={offset}" if offset else str(image)
    done = subprocess.run(["debugfs", "-R", f"cat {path}", where], capture_output=True, check=True)
    return done.stdout


def test_a_qcow2_file_in_a_shared_directory_is_read_as_a_file_and_its_next_backup_is_incremental(
    lab: Lab, product: Any, left_on_hosts: Left
) -> None:
    lab.start("qcow2-file")
    try:
        first = product.good("backup", "qcow2-file")[0]["point"]
        second = product.good("backup", "qcow2-file")[0]["point"]
    finally:
        lab.shutdown("qcow2-file")
    assert first["images"][0]["transport"] == "raw"
    assert second["level"] == "incremental"
    assert 0 < second["images"][0]["bytes_read"] < SYSTEM_SIZE // 4
    assert left_on_hosts() == []
    third = product.good("backup", "qcow2-file")[0]["point"]
    assert third["level"] == "incremental", "the bitmap lies in the image: no hypervisor is needed to read it"
    assert not product.good("verify")["damage"]


def test_a_machine_goes_back_in_place_when_it_is_off_and_overwriting_was_said(
    lab: Lab, product: Any, left_on_hosts: Left, journal: Callable[[str], int]
) -> None:
    point = product.good("backup", "raw-lun")[0]["point"]
    later = journal("raw-lun")
    place = f"vda={HOSTS.iqn}/1"
    code, document, said = product.run("restore", point["id"], "--disk", place, "--overwrite")
    assert code == 1, said
    assert "running" in document["error"]["message"]
    lab.shutdown("raw-lun")
    restored = product.good("restore", point["id"], "--disk", place, "--overwrite")
    assert restored["machine"]["id"] == point["machine"]
    lab.start("raw-lun")
    assert journal("raw-lun") < later + 30, "its time was turned back"
    again = product.good("backup", "raw-lun")[0]["point"]
    assert again["machine"] == point["machine"]
    assert left_on_hosts() == []


@pytest.mark.timeout(600)
def test_the_catalog_can_be_lost(lab: Lab, product: Any) -> None:
    product.good("backup", "powered-off")
    before = [point["id"] for point in product.good("points")]
    for path in (lab.directory / "state").glob("catalog.db*"):
        path.unlink()
    rebuilt = product.good("catalog", "rebuild", "--no-files")
    assert rebuilt["points"] == len(before)
    assert [point["id"] for point in product.good("points")] == before
    point = before[-1]
    assert point in rebuilt["not_indexed"]
    product.good("files", "index", point)
    assert any(hit["path"] == "/data/journal" for hit in product.good("files", "find", "journal", "--point", point))
