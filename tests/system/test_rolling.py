"""A raw machine that is kept on a rolling overlay, by the product's own commands: through its life, and back to its LUN."""

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.lab.array import HOSTS
from appliance.lab.guest import SYSTEM_SIZE
from appliance.lab.lab import Lab

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64", "nbdkit"),
    pytest.mark.timeout(900),
]

MACHINE = "raw-lun"
PARTITION = 2048 * 512


@pytest.fixture
def rolling(lab: Lab, product: Any, left_on_hosts: Callable[[], list[str]]) -> Iterator[Any]:
    """The product with the option on for one machine. In the end it is switched off again, and nothing may be left."""

    def on(text: str) -> str:
        return f'{text}\n[kvm]\nrolling_overlay = ["{MACHINE}"]\n'

    yield product.with_configuration(on, "rolling.toml")
    product.good("sweep")
    assert left_on_hosts() == []


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def overlay_of(lab: Lab) -> Path:
    """What the machine runs on, or starts from."""
    text = lab.host_of(MACHINE).virsh("domblklist", MACHINE).text
    return Path(next(line.split()[1] for line in text.splitlines() if line.strip().startswith("vda")))


def flattened(lab: Lab, to: Path) -> str:
    """Digest of the machine's chain, put together by QEMU from the overlay and the array's own file."""
    base = {"driver": "raw", "file": {"driver": "file", "filename": str(lab.array.lun(1).path)}}
    top = {"driver": "qcow2", "file": {"driver": "file", "filename": str(overlay_of(lab))}, "backing": base}
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", f"json:{json.dumps(top)}", str(to)], check=True)
    return digest(to)


def restored(lab: Lab, product: Any, point: Any, directory: Path) -> str:
    """Digest of the restore point, restored to a LUN of its own; its file system is clean and its journal consistent."""
    lun = lab.array.add_lun(SYSTEM_SIZE)
    try:
        product.good("restore", point["id"], "--disk", f"vda={HOSTS.iqn}/{lun.number}", "--disks-only")
        if point["consistency"] == "application":
            _consistent(lun.path, directory)
        return digest(lun.path)
    finally:
        lab.array.remove_lun(lun.number)


def _consistent(image: Path, directory: Path) -> None:
    part = directory / "part"
    with image.open("rb") as source:
        source.seek(PARTITION)
        part.write_bytes(source.read())
    assert subprocess.run(["e2fsck", "-fn", str(part)], capture_output=True, check=False).returncode == 0

    def cat(path: str) -> bytes:
        return subprocess.run(["debugfs", "-R", f"cat {path}", str(part)], capture_output=True, check=True).stdout

    records = cat("/data/journal").splitlines()
    assert cat("/data/QUIESCED").startswith(b"records=%d " % len(records))


def of_overlay(point: Any) -> bool:
    """An incremental from the overlay, over the SAN, of a small part of the disk."""
    (image,) = point["images"]
    codes = [reason["code"] for reason in image["reasons"]]
    small = 0 < image["bytes_read"] < SYSTEM_SIZE // 4
    return bool("changes-from-overlay" in codes and image["transport"] == "san" and small)


def test_a_raw_machine_is_backed_up_incrementally_through_its_life(
    lab: Lab, rolling: Any, product: Any, until: Callable[..., None], *, frozen: Callable[[], bool], tmp_path: Path
) -> None:
    def back_up() -> Any:
        return rolling.good("backup", MACHINE)[0]["point"]

    def journal() -> int:
        return len(lab.guest_read(MACHINE, "/data/journal").splitlines())

    def writes_go_on() -> None:
        seen = journal()
        until(lambda: journal() >= seen + 3)

    full = back_up()
    assert full["level"] == "full"
    shown = {machine["name"]: machine for machine in rolling.good("vm", "list")["machines"]}[MACHINE]
    assert shown["disks"][0]["location"]["lun"] == 1, "its disk is the LUN, whatever it runs on"

    writes_go_on()
    first = back_up()
    assert first["level"] == "incremental" and of_overlay(first)
    assert first["consistency"] == "application"
    # The frozen overlay was committed after the seal, and the guest writes to the next one: the LUN is the restore point.
    assert restored(lab, product, first, tmp_path) == digest(lab.array.lun(1).path)

    writes_go_on()
    lab.shutdown(MACHINE)
    off = back_up()
    assert of_overlay(off)
    assert restored(lab, product, off, tmp_path) == flattened(lab, tmp_path / "flat")

    place = ("--disk", f"vda={HOSTS.iqn}/1", "--overwrite")
    before = digest(lab.array.lun(1).path)
    for words in ((), ("--disks-only",)):
        code, document, said = rolling.run("restore", full["id"], *place, *words)
        assert (code, document["error"]["code"]) == (1, "restore-refused"), said
        assert "sweep" in document["error"]["hint"]
    assert digest(lab.array.lun(1).path) == before

    seen = len(_journal_of(tmp_path / "flat", tmp_path))
    lab.start(MACHINE)
    assert journal() >= seen, "it started from the overlay"
    writes_go_on()
    lab.migrate(MACHINE, "h2")
    try:
        writes_go_on()
        moved = back_up()
        assert moved["host"] == "h2" and of_overlay(moved)
        assert restored(lab, product, moved, tmp_path) == digest(lab.array.lun(1).path)

        writes_go_on()
        killed_in_the_middle(rolling, until, frozen)
        rolling.good("sweep")
        writes_go_on()
        after = back_up()
        assert of_overlay(after)
        assert restored(lab, product, after, tmp_path) == digest(lab.array.lun(1).path)
    finally:
        lab.migrate(MACHINE, "h1")
    assert not product.good("verify")["damage"]


def _journal_of(image: Path, directory: Path) -> list[bytes]:
    part = directory / "part"
    with image.open("rb") as source:
        source.seek(PARTITION)
        part.write_bytes(source.read())
    done = subprocess.run(["debugfs", "-R", "cat /data/journal", str(part)], capture_output=True, check=True)
    return done.stdout.splitlines()


def killed_in_the_middle(product: Any, until: Callable[..., None], frozen: Callable[[], bool]) -> None:
    """kill -9 as soon as the run has noted that its snapshot is there."""
    process = product.start("backup", MACHINE)
    until(lambda: process.poll() is not None or frozen())
    process.send_signal(signal.SIGKILL)
    said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


def test_going_back_in_place_works_once_the_overlay_is_merged(
    lab: Lab, rolling: Any, product: Any, left_on_hosts: Callable[[], list[str]], tmp_path: Path
) -> None:
    point = rolling.good("backup", MACHINE)[0]["point"]
    lab.shutdown(MACHINE)
    product.good("sweep")  # without the option: the overlay goes into the LUN
    assert left_on_hosts() == []
    product.good("restore", point["id"], "--disk", f"vda={HOSTS.iqn}/1", "--overwrite")
    assert digest(lab.array.lun(1).path) == restored(lab, product, point, tmp_path)
    lab.start(MACHINE)
    again = rolling.good("backup", MACHINE)[0]["point"]
    assert again["level"] == "full", "what was tracked before the restore tells nothing"
