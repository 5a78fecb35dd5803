"""A datastore on LUNs of a real tgtd, read through the whole stack: as it should be, and with everything that breaks.

::

    site (in memory) ──save──► images ──tgtd──► LUNs of the backup target, read-only, CHAP ──► VmfsTransport
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxy import command
from proxy.errors import ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, total
from proxy.model import FrozenDisk
from proxy.ports import BlockSource
from proxy.transfer import copy
from proxy.transport.iscsi import Limits
from proxy.transport.memory import MemorySource, MemoryTarget
from proxy.transport.raw import SharedFiles
from proxy.transport.san import SanFabric, SanTransport
from proxy.transport.vmfs import VmfsReason
from proxy.transport.vmfs_san import Qualification, VmfsSanReason, VmfsTransport
from proxy.units import MiB
from tests.integration.transport.tgt_array import BACKUP, Array, until
from tests.unit.transport.vmdk_builder import descriptor
from tests.unit.transport.vmfs_builder import DATA, HOLE, ZEROED
from tests.unit.transport.vmfs_site import Site, site, some_bytes, thin_site

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]

QUICK = Limits(timeout=2, login_timeout=2)
TID = 2
BASE = some_bytes(9 * MiB)
GRAINS = {number: random.Random(number).randbytes(4096) for number in range(0, 2000, 17)}


@dataclass
class San:
    """``images``: LUN name -> its backing file."""

    array: Array
    made: Site
    images: Mapping[str, Path]
    fabric: SanFabric
    secret: Path

    @property
    def transport(self) -> VmfsTransport:
        return VmfsTransport(self.fabric)

    def open(self) -> BlockSource:
        return self.transport.open(self.made.disk())

    def write(self, offset: int, data: bytes) -> None:
        """A host's write to the volume, which lies on one LUN."""
        index, at = self.made.volume.place(offset)
        with self.images[self.made.names[index]].open("r+b", buffering=0) as image:
            image.seek(at)
            image.write(data)


def present(array: Array, directory: Path, made: Site) -> San:
    """The datastore's LUNs in the backup target, under numbers from 1."""
    array.target(TID, BACKUP, chap=True)
    images = {}
    for number, (name, lun) in enumerate(zip(made.names, made.volume.luns, strict=True), start=1):
        images[name] = lun.save(directory / name)
        array.lun(TID, number, images[name], name.removeprefix("t10."), readonly=True)
    secret = directory / "secret"
    return San(array, made, images, SanFabric([array.san_target(BACKUP, secret)], QUICK), secret)


@pytest.fixture
def san(array: Array, tmp_path: Path) -> San:
    return present(array, tmp_path, site(BASE, [("se", GRAINS)], names=["t10.lanfree-ds-0"]))


@pytest.fixture
def spanned(array: Array, tmp_path: Path) -> San:
    made = thin_site([DATA, HOLE, ZEROED] * 10, extents=(1, 1), names=["t10.lanfree-ds-0", "t10.lanfree-ds-1"])
    return present(array, tmp_path, made)


def read(source: BlockSource, offset: int = 0, length: int | None = None) -> bytes:
    buffer = bytearray(source.size if length is None else length)
    source.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(TransportRefused) as refused:
        call()
    return refused.value.reason


def test_a_chain_on_a_lun_is_copied_as_it_is_and_the_array_counts_no_write(san: San) -> None:
    san.transport.probe(san.made.disk())
    with san.open() as source:
        target = MemoryTarget(source.size)
        extents = source.extents()
        copied = copy(source, target, extents, disk="scsi0:0")
        bytes_read, written, write_commands = san.array.counted(TID, 1)
    assert bytes(target.data) == san.made.truth
    assert copied.bytes_read == total(extents, Kind.DATA)
    assert bytes_read >= copied.bytes_read
    assert (written, write_commands) == (0, 0)


def test_a_spanned_volume_is_read_from_both_luns(spanned: San) -> None:
    with spanned.open() as source:
        assert read(source) == spanned.made.truth
        assert all(spanned.array.counted(TID, lun)[0] > 4 * MiB for lun in (1, 2))


def test_only_changed_ranges_are_read_from_the_lun(spanned: San) -> None:
    with spanned.open() as source:
        before = sum(spanned.array.counted(TID, lun)[0] for lun in (1, 2))
        for offset in (0, 3 * MiB, 27 * MiB):
            read(source, offset, 64 * 1024)
        assert sum(spanned.array.counted(TID, lun)[0] for lun in (1, 2)) - before == 3 * 64 * 1024


def test_wrong_chap_is_a_refusal_that_does_not_tell_the_secret(san: San) -> None:
    san.secret.write_text("not-the-right-secret")
    for call in (lambda: san.transport.probe(san.made.disk()), san.open):
        with pytest.raises(TransportRefused) as refused:
            call()
        assert refused.value.reason == "chap-rejected"
        assert "not-the-right-secret" not in str(refused.value) + refused.value.hint


def test_a_lun_that_is_not_mapped_to_the_proxy_is_a_refusal(san: San) -> None:
    san.array.unmap_lun(TID, 1)
    assert reason(san.open) == "no-target-presents-it"


def test_a_spanned_volume_with_one_lun_missing_is_a_refusal(spanned: San) -> None:
    spanned.array.unmap_lun(TID, 2)
    assert reason(spanned.open) == "no-target-presents-it"
    half = spanned.made.disk(devices=spanned.made.names[:1])
    assert reason(lambda: spanned.transport.open(half)) == VmfsReason.SPAN_MISSING


def test_another_lun_under_the_same_number_spoils_the_run(san: San, tmp_path: Path) -> None:
    """tgt puts it there without a word: reads go on, from another disk that looks the same to its last pointer."""
    other = site(bytes(len(BASE)), [("se", GRAINS)], names=["t10.lanfree-ds-9"])
    with pytest.raises(TransportRefused, match="lun-identity") as refused, san.open() as source:
        assert read(source, 0, MiB) == san.made.truth[:MiB]
        san.array.unmap_lun(TID, 1)
        san.array.lun(TID, 1, other.volume.luns[0].save(tmp_path / "other"), "lanfree-ds-9")
        assert read(source, 0, MiB) != san.made.truth[:MiB]
    assert refused.value.reason == VmfsSanReason.CHANGED
    assert [reason(san.open) for _ in range(2)] == ["lun-identity", "no-target-presents-it"]  # remembered, then asked


def test_a_lun_that_was_made_anew_under_the_same_name_is_a_refusal(san: San, tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    with blank.open("wb") as file:
        file.truncate(san.made.volume.luns[0].size)
    san.array.unmap_lun(TID, 1)
    san.array.lun(TID, 1, blank, "lanfree-ds-0")
    assert reason(san.open) == VmfsReason.NO_VOLUME


@contextmanager
def reader(source: BlockSource) -> Iterator[list[BaseException]]:
    """Reads the disk over and over in four threads, until it fails; the list holds why each of them ended."""
    ended: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while True:
                offset = chance.randrange(source.size - MiB)
                assert read(source, offset, MiB) == BASE_AND_GRAINS[offset : offset + MiB]
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            ended.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    yield ended
    for thread in threads:
        thread.join(60)
    assert len(ended) == 4


BASE_AND_GRAINS = site(BASE, [("se", GRAINS)]).truth


def test_an_array_killed_in_mid_read_fails_every_reader_at_once(san: San) -> None:
    source = san.open()
    with reader(source) as ended:
        before = san.array.counted(TID, 1)[0]
        until(lambda: san.array.counted(TID, 1)[0] > before + 20 * MiB, 20, "it reads")
        san.array.kill()
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert {type(error) for error in ended} == {ReadFailed}
    with pytest.raises(ReadFailed):  # nothing can be confirmed, so the run must not go on
        source.__exit__(None, None, None)
    assert reason(san.open) == "portal-unreachable"


def test_an_array_frozen_in_mid_read_ends_in_an_error_in_bounded_time(san: San) -> None:
    source = san.open()
    with reader(source) as ended:
        before = san.array.counted(TID, 1)[0]
        until(lambda: san.array.counted(TID, 1)[0] > before + 20 * MiB, 20, "it reads")
        san.array.freeze()
        start = time.monotonic()
    assert time.monotonic() - start < 40
    assert {type(error) for error in ended} == {ReadFailed}
    san.array.thaw()
    assert read(source, 0, MiB) == BASE_AND_GRAINS[:MiB]  # a session anew
    with source:
        pass


def change_blocks(san: San) -> None:
    made = san.made
    at = made.made.at["vm/vm-flat.vmdk"] + made.made.geometry.pointers_at
    san.write(at, made.volume.read(at + 8, 8) + made.volume.read(at, 8))


def change_lock(san: San) -> None:
    san.write(san.made.made.at["vm/vm-flat.vmdk"] + 0x24, b"\x01")


def change_cid(san: San) -> None:
    text = descriptor(len(BASE), "VMFS", "vm-flat.vmdk", cid=0xBAD)
    san.write(san.made.made.at["vm/vm.vmdk"] + san.made.made.geometry.resident_at, text)


@pytest.mark.parametrize("change", [change_blocks, change_lock, change_cid])
def test_metadata_that_a_host_changes_under_the_reader_spoils_the_run(san: San, change: Callable[[San], None]) -> None:
    with pytest.raises(TransportRefused) as refused, san.open() as source:
        copy(source, MemoryTarget(source.size), source.extents(), disk="scsi0:0")
        change(san)
    assert refused.value.reason == VmfsSanReason.CHANGED


def test_what_other_machines_do_on_the_datastore_meanwhile_does_not_matter(san: San) -> None:
    with san.open() as source:
        san.write(0x300000, random.Random(1).randbytes(64 * 4096))  # heartbeats of hosts
        assert read(source) == san.made.truth


def test_a_pointer_block_that_loops_is_a_refusal(san: San) -> None:
    at = san.made.made.at["vm/vm-flat.vmdk"]
    san.write(at + san.made.made.geometry.facts_at + 0x44, (3).to_bytes(4, "little"))  # "pointers name pointer blocks"
    assert reason(san.open) == VmfsReason.UNKNOWN_ADDRESS


def test_a_lun_shorter_than_its_volume_is_a_refusal(san: San) -> None:
    image = san.images["t10.lanfree-ds-0"]
    short = image.with_name("short")
    command.run(["cp", "--sparse=always", image, short], timeout=20)
    with short.open("r+b") as file:
        file.truncate(200 * MiB)
    san.array.unmap_lun(TID, 1)
    san.array.lun(TID, 1, short, "lanfree-ds-0")
    assert reason(san.open) in {VmfsReason.LUN_TOO_SMALL, VmfsReason.PARTITION_TABLE_DAMAGED}


def test_each_open_disk_has_two_sessions_and_leaves_none(san: San) -> None:
    def sessions() -> int:
        told = command.run(
            [
                "tgtadm",
                "-C",
                str(san.array.control),
                "--lld",
                "iscsi",
                "--mode",
                "conn",
                "--op",
                "show",
                "--tid",
                str(TID),
            ],
            timeout=10,
        ).text
        return told.count("Session:")

    with san.open():
        assert sessions() == 2
    until(lambda: sessions() == 0, 5, "logged out")


def test_a_datastore_is_qualified_over_the_fabric_and_remembered(san: San, tmp_path: Path) -> None:
    opened: list[FrozenDisk] = []

    def host(disk: FrozenDisk) -> BlockSource:
        opened.append(disk)
        return MemorySource(san.made.truth)

    transport = VmfsTransport(san.fabric, qualification=Qualification(tmp_path / "state", host))
    for _ in range(2):
        with transport.open(san.made.disk()) as source:
            assert read(source, 0, MiB) == san.made.truth[:MiB]
    assert opened == [san.made.disk()]


@dataclass
class Told:
    areas: list[Extent]

    def allocated(self, _address: object) -> list[Extent]:
        return self.areas


def test_the_hypervisors_account_is_compared_over_the_fabric(spanned: San) -> None:
    disk = spanned.made.disk()
    data = [Extent(number * 3 * MiB, MiB) for number in range(10)]
    with VmfsTransport(spanned.fabric, Told(data)).open(disk) as source:
        assert read(source) == spanned.made.truth
    more = VmfsTransport(spanned.fabric, Told([*data, Extent(MiB, MiB)]))
    assert reason(lambda: more.open(disk)) == VmfsSanReason.ALLOCATION


def test_the_other_san_transport_leaves_the_disk_to_this_one(san: San) -> None:
    assert reason(lambda: SanTransport(san.fabric).open(san.made.disk())) == "not-on-san"


@pytest.mark.requires("losetup")
def test_a_lun_behind_the_kernel_is_read_by_its_name_in_the_world(tmp_path: Path) -> None:
    """As with Fibre Channel or multipath: no target presents it, /dev/disk/by-id has it."""
    made = site(BASE, [("se", GRAINS)], names=["naa.600a0b80001111110000000000000001"])
    image = made.volume.luns[0].save(tmp_path / "lun")
    device = command.run(["losetup", "-f", "--show", "-r", image], timeout=10).text.strip()
    try:
        by_id = tmp_path / "by-id"
        by_id.mkdir()
        (by_id / "dm-uuid-mpath-3600a0b80001111110000000000000001").symlink_to(device)
        transport = VmfsTransport(SanFabric([]), files=SharedFiles((), by_id))
        transport.probe(made.disk())
        with transport.open(made.disk()) as source:
            assert read(source) == made.truth
            for offset, length in ((1, 511), (4095, 70_000), (len(BASE) - 3, 3)):
                assert read(source, offset, length) == made.truth[offset : offset + length]
        wrong = replace(made, names=("naa.600a0b80001111110000000000000002",))
        assert reason(lambda: transport.open(wrong.disk())) == "no-target-presents-it"
    finally:
        command.run(["losetup", "-d", device], timeout=10)
