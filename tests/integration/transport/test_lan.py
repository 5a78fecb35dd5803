"""The lan transport against an export like the hypervisor's, plain and over TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.command import run, spawn, stop
from proxy.errors import TransportRefused
from proxy.extents import Extent, total
from proxy.model import Format, FrozenDisk, Layer, NbdAddress, Tracking
from proxy.transport.lan import LanTransport
from proxy.units import KiB, MiB
from tests.integration.transport.nbd_servers import certificates, free_port, qemu_nbd, served, until_listening

pytestmark = pytest.mark.tools

SIZE = 4 * MiB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(SIZE)], timeout=60)
    run(["qemu-io", "-c", "write -P 7 1M 1M", path], timeout=60)
    run(["qemu-img", "bitmap", "--add", path, "mark"], timeout=60)
    run(["qemu-io", "-c", "write -P 8 1M 64k", path], timeout=60)
    return path


def exported(address: NbdAddress, size: int = SIZE) -> FrozenDisk:
    return FrozenDisk("vda", size, (Layer(address, Format.RAW),), Tracking.IMAGE)


def assert_serves(disk: FrozenDisk) -> None:
    transport = LanTransport()
    transport.probe(disk)
    with transport.open(disk) as source:
        assert (source.size, source.identity) == (SIZE, "nbd:vda")
        assert total(source.extents()) == SIZE
        assert source.changed("mark") == [Extent(MiB, 64 * KiB)]
        buffer = bytearray(MiB + 2)
        source.read_into(MiB - 1, memoryview(buffer))
        assert buffer == b"\0" + b"\x08" * 64 * KiB + b"\7" * (MiB - 64 * KiB) + b"\0"


def test_an_export_on_a_socket_is_served(image: Path) -> None:
    with served(qemu_nbd(image, "-r", "-B", "mark", "-x", "vda", form="qcow2")) as server:
        assert_serves(exported(NbdAddress(server.uri("vda"), "qemu:dirty-bitmap:mark")))


def test_a_disk_of_another_size_is_refused(image: Path) -> None:
    with served(qemu_nbd(image, "-r", "-x", "vda", form="qcow2")) as server:
        for uri, reason in ((server.uri("vda"), "size-mismatch"), (server.uri("vdb"), "nbd-unreachable")):
            with pytest.raises(TransportRefused) as refused:
                LanTransport().open(exported(NbdAddress(uri), SIZE + 512))
            assert refused.value.reason == reason


@contextmanager
def over_tls(image: Path, directory: Path) -> Iterator[int]:
    """qemu-nbd on a port that speaks TLS only, and demands a certificate of its clients."""
    port = free_port()
    credentials = f"tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir={directory}"
    words = ["-r", "-t", "-e", "8", "-f", "qcow2", "-B", "mark", "-x", "vda", "-b", "127.0.0.1", "-p", str(port)]
    process = spawn(["qemu-nbd", "--object", credentials, "--tls-creds", "tls", *words, image])
    try:
        until_listening(process, ("127.0.0.1", port))
        yield port
    finally:
        stop(process)


def test_an_export_over_tls_is_served_to_a_client_with_a_certificate(image: Path, tmp_path: Path) -> None:
    directory = certificates(tmp_path / "pki")
    with over_tls(image, directory) as port:
        address = NbdAddress(f"nbds://127.0.0.1:{port}/vda", "qemu:dirty-bitmap:mark", str(directory))
        assert_serves(exported(address))


def test_a_strangers_certificate_and_a_plain_connection_are_both_refused(image: Path, tmp_path: Path) -> None:
    ours, theirs = certificates(tmp_path / "pki"), certificates(tmp_path / "stranger")
    with over_tls(image, ours) as port:
        for address in (
            NbdAddress(f"nbds://127.0.0.1:{port}/vda", None, str(theirs)),
            NbdAddress(f"nbd://127.0.0.1:{port}/vda", None, None),
            NbdAddress(f"nbds://127.0.0.1:{port}/vda", None, str(tmp_path)),
        ):
            with pytest.raises(TransportRefused) as refused:
                LanTransport().open(exported(address))
            assert refused.value.reason == "nbd-unreachable"


def test_with_a_certificate_directory_nothing_is_ever_sent_in_the_clear(image: Path, tmp_path: Path) -> None:
    directory = certificates(tmp_path / "pki")
    with served(qemu_nbd(image, "-r", "-x", "vda", form="qcow2")) as server:
        with pytest.raises(TransportRefused) as refused:
            LanTransport().open(exported(NbdAddress(server.uri("vda"), None, str(directory))))
        assert refused.value.reason == "nbd-unreachable"
