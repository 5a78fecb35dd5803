"""Our chains of disks against QEMU, which reads vmfsSparse and seSparse with code of its own: both read the same."""

import random
from pathlib import Path

import pytest

from proxy.command import run
from proxy.errors import ToolFailed, TransportRefused
from proxy.transport.vmdk import VmdkReason, open_vmdk
from proxy.transport.vmfs import Subject
from proxy.units import MiB
from tests.unit.transport.vmdk_builder import GRAIN, Files, build_chain, se_sparse

pytestmark = [pytest.mark.tools, pytest.mark.requires("qemu-img")]

SUBJECT = Subject("san", "scsi0:0")
SIZE = 20 * MiB  # two tables of a seSparse delta, ten of a vmfsSparse one


def on_disk(files: Files, directory: Path) -> Path:
    for path, data in files.content.items():
        (directory / Path(path).name).write_bytes(data)
    return directory


def qemu_reads(image: Path) -> bytes:
    raw = image.with_suffix(".raw")
    run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", image, raw], timeout=120)
    return raw.read_bytes()


def random_grains(kind: str, chance: random.Random) -> dict[int, bytes | None]:
    grains: dict[int, bytes | None] = {}
    for _run in range(12):
        first = chance.randrange(SIZE // GRAIN[kind])
        for grain in range(first, min(first + chance.randrange(1, 40), SIZE // GRAIN[kind])):
            zero = kind == "se" and chance.random() < 0.2
            grains[grain] = None if zero else chance.randbytes(GRAIN[kind])
    return grains


@pytest.mark.parametrize(
    "kinds", ["vmfs", "se", "vmfs vmfs vmfs", "se se se"], ids=lambda kinds: kinds.replace(" ", "-")
)
@pytest.mark.parametrize("seed", range(3))
def test_a_chain_reads_as_qemu_reads_it(kinds: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    base = chance.randbytes(SIZE)
    files, top, truth = build_chain(base, [(kind, random_grains(kind, chance)) for kind in kinds.split()])
    with open_vmdk(files.open, top, SUBJECT) as source:
        ours = bytearray(SIZE)
        source.read_into(0, memoryview(ours))
    assert bytes(ours) == truth
    assert qemu_reads(on_disk(files, tmp_path) / Path(top).name) == truth


def test_a_journal_that_was_not_replayed_is_refused_by_both(tmp_path: Path) -> None:
    files, top, _truth = build_chain(bytes(SIZE), [("se", {0: b"x"})])
    files.content["vm/vm-000001-sesparse.vmdk"] = se_sparse(SIZE, {0: b"x"}, replay=1)
    with pytest.raises(TransportRefused) as refused:
        open_vmdk(files.open, top, SUBJECT)
    assert refused.value.reason == VmdkReason.JOURNAL
    with pytest.raises(ToolFailed):
        qemu_reads(on_disk(files, tmp_path) / Path(top).name)
