"""The NBD adapter against qemu-nbd and nbdkit: maps, bitmaps, many threads, and servers that fail in the middle."""

import random
import threading
import time
from pathlib import Path

import pytest

from proxy.command import run
from proxy.errors import ChangesUnknown, ReadFailed, RestoreRefused, WriteFailed
from proxy.extents import Extent, Kind, is_map
from proxy.model import NbdAddress, ReasonCode
from proxy.transport import nbd as adapter
from proxy.transport.nbd import NbdSource, NbdTarget
from proxy.units import GiB, KiB, MiB
from tests.integration.transport.nbd_servers import nbdkit, qemu_nbd, served

pytestmark = pytest.mark.tools

SIZE = 8 * MiB


def content_of(source: NbdSource) -> bytes:
    buffer = bytearray(b"\xee" * source.size)
    source.read_into(0, memoryview(buffer))
    return bytes(buffer)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """1 MiB of random bytes at 0 and at 4 MiB of 8 MiB, qcow2."""
    path = tmp_path / "a.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE)], timeout=60)
    run(["qemu-io", "-c", "write -P 7 0 1M", "-c", "write -P 8 4M 1M", "-c", "write -z 6M 1M", path], timeout=60)
    return path


def test_extents_and_content_of_an_image_behind_qemu_nbd(image: Path) -> None:
    with served(qemu_nbd(image, "-r", form="qcow2")) as server, NbdSource(NbdAddress(server.uri())) as source:
        assert source.can_report_extents
        assert source.extents() == [
            Extent(0, MiB),
            Extent(MiB, 3 * MiB, Kind.ZERO),
            Extent(4 * MiB, MiB),
            Extent(5 * MiB, 3 * MiB, Kind.ZERO),
        ]
        assert content_of(source) == b"\7" * MiB + bytes(3 * MiB) + b"\x08" * MiB + bytes(3 * MiB)


def test_what_changed_is_what_the_bitmap_marks(image: Path) -> None:
    run(["qemu-img", "bitmap", "--add", image, "mark"], timeout=60)
    run(["qemu-io", "-c", "write -P 9 2M 64k", "-c", "discard 4M 64k", image], timeout=60)
    with served(qemu_nbd(image, "-r", "-B", "mark", form="qcow2")) as server:
        with NbdSource(NbdAddress(server.uri(), "qemu:dirty-bitmap:mark")) as source:
            assert source.changed("mark") == [Extent(2 * MiB, 64 * KiB), Extent(4 * MiB, 64 * KiB)]
        with NbdSource(NbdAddress(server.uri(), "qemu:dirty-bitmap:other")) as source:
            with pytest.raises(ChangesUnknown) as unknown:
                source.changed("other")
            assert unknown.value.reason == ReasonCode.TRACKING_LOST
        with NbdSource(NbdAddress(server.uri())) as source:
            with pytest.raises(ChangesUnknown) as unknown:
                source.changed("mark")
            assert unknown.value.reason == ReasonCode.TRANSPORT_WITHOUT_CHANGES


def test_a_disk_of_many_times_4_gib_is_mapped_in_pages(tmp_path: Path) -> None:
    disk = tmp_path / "sparse.raw"
    with disk.open("wb") as file:
        file.truncate(20 * GiB + 512)
        file.seek(13 * GiB)
        file.write(b"x" * 4096)
    with served(qemu_nbd(disk, "-r")) as server, NbdSource(NbdAddress(server.uri())) as source:
        extents = source.extents()
    assert is_map(extents, 20 * GiB + 512)
    assert [e for e in extents if e.kind is Kind.DATA] == [Extent(13 * GiB, 4096)]


def test_a_server_that_tells_no_extents_is_read_whole() -> None:
    with served(nbdkit("--no-sr", "pattern", "1M")) as server, NbdSource(NbdAddress(server.uri())) as source:
        assert not source.can_report_extents
        assert source.extents() == [Extent(0, MiB)]


def test_many_threads_share_several_connections(tmp_path: Path) -> None:
    disk = tmp_path / "a.raw"
    data = random.Random(1).randbytes(SIZE)
    disk.write_bytes(data)
    with served(qemu_nbd(disk, "-r")) as server, NbdSource(NbdAddress(server.uri())) as source:
        assert reads_in_threads(source, data, 8) == []


def test_a_server_for_one_client_serves_many_threads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "EXTRA_CONNECT_SECONDS", 0.3)
    disk = tmp_path / "a.raw"
    data = random.Random(2).randbytes(SIZE)
    disk.write_bytes(data)
    with served(qemu_nbd(disk, "-r", clients=1)) as server, NbdSource(NbdAddress(server.uri())) as source:
        assert reads_in_threads(source, data, 4) == []


def reads_in_threads(source: NbdSource, data: bytes, count: int) -> list[int]:
    wrong: list[int] = []

    def reader(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(25):
            at, length = order.randrange(SIZE - MiB), order.randrange(1, MiB)
            buffer = bytearray(length)
            source.read_into(at, memoryview(buffer))
            if buffer != data[at : at + length]:
                wrong.append(at)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return wrong


def test_ends_that_do_not_fit_the_servers_blocks_are_read_all_the_same() -> None:
    words = ("--filter=blocksize-policy", "pattern", "1M", "blocksize-minimum=4096", "blocksize-error-policy=error")
    with served(nbdkit(*words)) as server, NbdSource(NbdAddress(server.uri())) as source:
        whole = content_of(source)
        for at, length in ((1, 10), (4090, 20), (4096, 8192), (MiB - 3, 3)):
            buffer = bytearray(length)
            source.read_into(at, memoryview(buffer))
            assert buffer == whole[at : at + length]


def test_a_request_longer_than_any_server_takes_is_cut() -> None:
    with served(nbdkit("pattern", "80M")) as server, NbdSource(NbdAddress(server.uri())) as source:
        whole = content_of(source)
    assert whole[:8] == bytes(8)
    assert all(whole[at : at + 8] == at.to_bytes(8, "big") for at in range(0, 80 * MiB, 999_992))


def test_an_error_of_the_server_fails_the_read_and_leaves_the_source_usable(tmp_path: Path) -> None:
    trigger = tmp_path / "fail"
    words = ("--filter=error", "pattern", "1M", "error-pread-rate=100%", f"error-file={trigger}")
    with served(nbdkit(*words)) as server, NbdSource(NbdAddress(server.uri())) as source:
        trigger.touch()
        with pytest.raises(ReadFailed, match="4096 bytes at 8192"):
            source.read_into(8192, memoryview(bytearray(4096)))
        trigger.unlink()
        assert content_of(source)[8:16] == (8).to_bytes(8, "big")


def test_a_server_that_vanishes_fails_every_read_at_once(tmp_path: Path) -> None:
    with served(nbdkit("--filter=delay", "pattern", "1M", "delay-read=20")) as server:
        source = NbdSource(NbdAddress(server.uri()))
        failures: list[ReadFailed] = []

        def reader() -> None:
            try:
                source.read_into(0, memoryview(bytearray(4096)))
            except ReadFailed as error:
                failures.append(error)

        threads = [threading.Thread(target=reader) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        begin = time.monotonic()
        server.process.kill()
        for thread in threads:
            thread.join(10)
        with pytest.raises(ReadFailed, match="lost"):
            source.read_into(0, memoryview(bytearray(4096)))
        assert len(failures) == 3
        assert time.monotonic() - begin < 3
        source.close()


def test_a_server_that_says_nothing_is_given_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "REQUEST_SECONDS", 0.5)
    with served(nbdkit("--filter=delay", "pattern", "1M", "delay-read=30")) as server:
        source = NbdSource(NbdAddress(server.uri()))
        with pytest.raises(ReadFailed, match=r"no answer within 0\.5 s"):
            source.read_into(0, memoryview(bytearray(4096)))
        source.close()
        server.process.kill()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_leaves_no_open_file() -> None:
    with served(nbdkit("pattern", "1M")) as server:
        before = open_files()
        for _ in range(5):
            with NbdSource(NbdAddress(server.uri())) as source:
                source.extents()
        assert open_files() <= before


# --- targets ---


def test_a_qcow2_file_is_restored_through_qemu_nbd(tmp_path: Path) -> None:
    image = tmp_path / "new.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE)], timeout=60)
    words = qemu_nbd(image, "--discard=unmap", form="qcow2")
    with served(words) as server, NbdTarget(NbdAddress(server.uri())) as target:
        target.write(MiB, memoryview(b"x" * 2 * MiB))
        target.zero(2 * MiB, 5 * MiB)
        target.flush()
    raw = tmp_path / "a.raw"
    run(["qemu-img", "convert", "-O", "raw", image, raw], timeout=60)
    assert raw.read_bytes() == bytes(MiB) + b"x" * MiB + bytes(6 * MiB)


def test_a_server_without_write_zeroes_is_sent_the_zeroes(tmp_path: Path) -> None:
    disk = tmp_path / "a.raw"
    disk.write_bytes(b"x" * 3 * MiB)
    words = nbdkit("--filter=nozero", "file", str(disk), "zeromode=none")
    with served(words) as server, NbdTarget(NbdAddress(server.uri())) as target:
        target.zero(512, 2 * MiB)
        target.flush()
    assert disk.read_bytes() == b"x" * 512 + bytes(2 * MiB) + b"x" * (MiB - 512)


def test_a_read_only_export_is_refused_as_a_target(image: Path) -> None:
    with served(qemu_nbd(image, "-r", form="qcow2")) as server, pytest.raises(RestoreRefused, match="read-only"):
        NbdTarget(NbdAddress(server.uri()))


def test_a_failing_write_names_its_place(tmp_path: Path) -> None:
    words = nbdkit("--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%")
    with (
        served(words) as server,
        NbdTarget(NbdAddress(server.uri())) as target,
        pytest.raises(WriteFailed, match=r"512 bytes at 1024 .* No space left"),
    ):
        target.write(1024, memoryview(bytes(512)))
