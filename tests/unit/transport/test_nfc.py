"""NFC exports as a source: forward, in bounded memory, never a wrong byte. Contract: ``tests/contract``."""

import random
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import CertificateRefused, ChangesUnknown, HypervisorError, ReadFailed, TransportRefused
from proxy.extents import Extent
from proxy.model import Format, FrozenDisk, Layer, LunAddress, VmdkAddress
from proxy.ports import BlockSource
from proxy.transfer import copy
from proxy.transport import nfc
from proxy.transport.nfc import HostBudget, HostBusy, NfcTransport
from proxy.units import KiB, MiB
from tests.unit.transport.nfc_host import Host, frozen, written

SIZE = 48 * MiB + 512


def content() -> bytes:
    """Noise in the first and the last part, text and holes between them."""
    chosen = random.Random(3)
    data = bytearray(SIZE)
    for start in range(0, 20 * MiB, 2 * MiB):
        data[start : start + MiB] = chosen.randbytes(MiB)
    data[35 * MiB : 36 * MiB] = b"words" * (MiB // 5) + b"."
    data[SIZE - 3 * KiB :] = chosen.randbytes(3 * KiB)
    return bytes(data)


DATA = content()
STREAM = written(DATA)


@pytest.fixture
def host() -> Host:
    return Host({"vm/scsi0-0.vmdk": STREAM})


def opened(host: Host) -> BlockSource:
    return NfcTransport(host.export).open(frozen(SIZE))


def read(source: BlockSource, offset: int, length: int) -> bytes:
    data = bytearray(b"\xee" * length)
    source.read_into(offset, memoryview(data))
    return bytes(data)


class Kept:
    """A sink that remembers."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4, 9])
def test_a_copy_by_several_workers_brings_every_byte_and_reads_the_stream_once(host: Host, workers: int) -> None:
    kept = Kept(SIZE)
    with opened(host) as source:
        copy(source, kept, source.extents(), disk="scsi0:0", workers=workers)
    assert kept.data == DATA
    assert host.opened == 1


def test_only_what_changed_is_read_and_gaps_are_skipped(host: Host) -> None:
    changed: Sequence[Extent] = [
        Extent(0, MiB),
        Extent(18 * MiB, 2 * MiB),
        Extent(35 * MiB + 5, 100),
        Extent(SIZE - 5, 5),
    ]
    kept = Kept(SIZE)
    with opened(host) as source:
        copy(source, kept, changed, disk="scsi0:0", workers=4)
    for e in changed:
        assert kept.data[e.start : e.end] == DATA[e.start : e.end]
    assert host.opened == 1


def test_the_window_is_bounded_and_a_little_behind_is_fine(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfc, "WINDOW", 4 * MiB)
    with opened(host) as source:
        assert read(source, 16 * MiB, MiB) == DATA[16 * MiB : 17 * MiB]
        assert len(source._window) * 64 * KiB <= 4 * MiB  # type: ignore[attr-defined]
        assert read(source, 14 * MiB, MiB) == DATA[14 * MiB : 15 * MiB]
        assert host.opened == 1


def test_what_is_behind_is_read_again_once_and_then_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfc, "WINDOW", 4 * MiB)
    with opened(host) as source:
        assert read(source, 18 * MiB, MiB) == DATA[18 * MiB : 19 * MiB]
        assert read(source, 0, MiB) == DATA[:MiB]
        assert read(source, 18 * MiB, MiB) == DATA[18 * MiB : 19 * MiB]
        assert host.opened == 2
        with pytest.raises(ReadFailed, match="forward only"):
            source.read_into(0, memoryview(bytearray(512)))
        with pytest.raises(ReadFailed, match="forward only"):
            source.read_into(19 * MiB, memoryview(bytearray(512)))


SMALL = 3 * MiB + 512
PATTERN = bytes(b for n in range(SMALL // 512) for b in (bytes(512) if n // 300 % 2 else n.to_bytes(4, "big") * 128))

PATTERN_STREAM = written(PATTERN)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    reads=st.lists(st.tuples(st.integers(0, SMALL - 1), st.integers(1, 600 * KiB)), max_size=12),
    window=st.integers(1, 20),
)
def test_whatever_is_asked_for_it_is_right_or_refused(reads: list[tuple[int, int]], window: int) -> None:
    host = Host({"vm/scsi0-0.vmdk": PATTERN_STREAM})
    with pytest.MonkeyPatch.context() as patch, NfcTransport(host.export).open(frozen(SMALL)) as source:
        patch.setattr(nfc, "WINDOW", window * 64 * KiB)
        for offset, length in reads:
            wanted = PATTERN[offset : offset + length]
            try:
                assert read(source, offset, len(wanted)) == wanted
            except ReadFailed as error:
                assert "forward only" in str(error)
    assert host.opened <= 2


def test_a_lost_connection_fails_this_read_and_all_that_follow(host: Host) -> None:
    host.lost_at = len(STREAM) // 2
    with opened(host) as source:
        assert read(source, 0, MiB) == DATA[:MiB]
        for _ in range(2):
            with pytest.raises(ReadFailed, match="connection to esx1 was lost"):
                source.read_into(SIZE - 512, memoryview(bytearray(512)))
    assert host.running == 0
    assert host.lasts[-1].closed


@pytest.mark.slow
@pytest.mark.parametrize("cut", [len(STREAM) // 3, len(STREAM) - 512])
def test_a_stream_that_ends_early_never_reads_as_zero(host: Host, cut: int) -> None:
    host.streams["vm/scsi0-0.vmdk"] = STREAM[:cut]
    with opened(host) as source, pytest.raises(ReadFailed):
        copy(source, Kept(SIZE), source.extents(), disk="scsi0:0")


def test_a_damaged_grain_is_a_failed_read(host: Host) -> None:
    at = STREAM.index(written(DATA[:MiB])[129 * 512 : 130 * 512]) + 100
    host.streams["vm/scsi0-0.vmdk"] = STREAM[:at] + bytes([STREAM[at] ^ 0x55]) + STREAM[at + 1 :]
    with opened(host) as source, pytest.raises(ReadFailed):
        source.read_into(0, memoryview(bytearray(MiB)))


def test_it_tells_its_lease_how_far_it_is(host: Host) -> None:
    with opened(host) as source:
        copy(source, Kept(SIZE), source.extents(), disk="scsi0:0")
    assert host.shares == sorted(host.shares)
    assert host.shares[-1] == 1.0


def test_closing_in_the_middle_ends_the_export(host: Host) -> None:
    source = opened(host)
    source.read_into(0, memoryview(bytearray(512)))
    assert host.running == 1
    source.close()
    source.close()
    assert host.running == 0
    with pytest.raises(ReadFailed):
        source.read_into(0, memoryview(bytearray(512)))


def test_it_records_no_changes(host: Host) -> None:
    with opened(host) as source, pytest.raises(ChangesUnknown):
        source.changed("52 de/1")


# --- refusals ---


def refused(transport: NfcTransport, disk: FrozenDisk) -> str:
    with pytest.raises(TransportRefused) as error:
        transport.open(disk)
    return error.value.reason


def test_what_is_no_machines_vsphere_disk_is_refused_before_anything_is_asked(host: Host) -> None:
    transport = NfcTransport(host.export)
    lun = FrozenDisk("vda", SIZE, (Layer(LunAddress("iqn", 1), Format.RAW),))
    nobody = FrozenDisk("scsi0:0", SIZE, (Layer(VmdkAddress("ds", "vm/vm.vmdk"), Format.VMDK),))
    for disk, reason in ((lun, "not-a-vsphere-disk"), (nobody, "no-machine")):
        assert refused(transport, disk) == reason
        with pytest.raises(TransportRefused):
            transport.probe(disk)
    transport.probe(frozen(SIZE))
    assert host.opened == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HypervisorError("export", "no"), "export-refused"),
        (CertificateRefused("esx1:443", "AA", "BB"), "certificate-refused"),
    ],
)
def test_a_host_that_refuses_makes_the_transport_refuse(host: Host, error: Exception, reason: str) -> None:
    host.refuses = error
    assert refused(NfcTransport(host.export), frozen(SIZE)) == reason
    assert host.running == 0


def test_no_answer_at_all_is_a_failed_read(host: Host) -> None:
    host.refuses = ConnectionRefusedError("nobody listens")
    with pytest.raises(ReadFailed, match="nobody listens"):
        opened(host)
    assert host.running == 0


def test_no_stream_and_another_size_are_refused(host: Host) -> None:
    assert refused(NfcTransport(host.export), frozen(SIZE + 512)) == "size-mismatch"
    host.streams["vm/scsi0-0.vmdk"] = b"<html>" + bytes(2000)
    assert refused(NfcTransport(host.export), frozen(SIZE)) == "stream-damaged"
    assert host.running == 0
    assert all(stream.closed for stream in host.lasts)


def test_a_host_without_a_connection_left_is_refused_in_time(host: Host) -> None:
    transport = NfcTransport(host.export, HostBudget(1, patience=0.05))
    with transport.open(frozen(SIZE)):
        assert refused(transport, frozen(SIZE)) == "host-has-no-connection-left"
        assert host.running == 1
    transport.open(frozen(SIZE)).close()


def test_never_more_connections_to_a_host_than_the_budget_allows() -> None:
    budget, now, most, lock = HostBudget(3, patience=30), 0, 0, threading.Lock()

    def user() -> None:
        nonlocal now, most
        for _ in range(20):
            with budget.connection("esx1"):
                with lock:
                    now += 1
                    most = max(most, now)
                with lock:
                    now -= 1

    threads = [threading.Thread(target=user) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 1 <= most <= 3
    for host in ("esx1", "esx2"):
        with budget.connection(host), budget.connection(host), budget.connection(host):
            pass
    with pytest.raises(HostBusy), HostBudget(0, 0.01).connection("esx1"):
        pass
