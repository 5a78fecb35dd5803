"""Streams over HTTPS: only with the host that vCenter named, and never a word of the ticket."""

import hashlib
import random
import ssl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.errors import CertificateRefused, HostUnreachable
from proxy.hypervisor.vsphere import nfc_http
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.leases import Device
from proxy.hypervisor.vsphere.nfc_http import Download, Upload, sha1_thumbprint
from proxy.hypervisor.vsphere.tls import Pin
from tests.unit.hypervisor.vsphere.esx_host import TICKET, EsxHost, esx_host
from tests.unit.hypervisor.vsphere.scripted_vcenter import ScriptedVcenter

# Each test speaks TLS to a server of its own, in the many ways in which an export may end.
pytestmark = pytest.mark.slow

BODY = random.Random(5).randbytes(900_001)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EsxHost]:
    monkeypatch.setattr(nfc_http, "BUSY_PAUSES", (0.01, 0.01))
    with esx_host(tmp_path) as found:
        found.body = BODY
        yield found


def words(work: Callable[[], object], kind: type[BaseException]) -> str:
    """What a failure tells: message, notes, trace."""
    with pytest.raises(kind) as error:
        work()
    told = "".join(traceback.format_exception(error.value)) + repr(error.value)
    assert "ticket-of-a-session" not in told
    return str(error.value)


def downloaded(device: Device) -> bytes:
    stream = Download(device, "export of web")
    try:
        parts = []
        while piece := stream.read(123_456):
            parts.append(piece)
        return b"".join(parts)
    finally:
        stream.close()
        stream.close()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_the_host_that_was_named_sends_the_disk(host: EsxHost, algorithm: str) -> None:
    assert downloaded(host.device(getattr(host, algorithm))) == BODY
    assert host.asked == [("GET", TICKET, 0)]


def test_a_read_gives_all_that_was_asked_for_until_the_end(host: EsxHost) -> None:
    stream = Download(host.device(), "export of web")
    assert [len(stream.read(400_000)) for _ in range(4)] == [400_000, 400_000, 100_001, 0]
    stream.close()


def test_another_host_is_sent_nothing(host: EsxHost) -> None:
    for work in (lambda: Download(host.device("ab" * 20), "export"), lambda: Upload(host.device("ab" * 32), "import")):
        words(work, CertificateRefused)
    assert host.asked == []


def test_a_busy_host_is_asked_again_and_then_refused(host: EsxHost) -> None:
    host.statuses.extend([503, 503])
    assert downloaded(host.device()) == BODY
    host.statuses.extend([503] * 3)
    with pytest.raises(Refused) as error:
        Download(host.device(), "export of web")
    assert error.value.refusal is Refusal.BUSY


@pytest.mark.parametrize("status", [401, 404, 500])
def test_any_other_answer_is_a_refusal(host: EsxHost, status: int) -> None:
    host.statuses.append(status)
    assert f"HTTP {status}" in words(lambda: Download(host.device(), "export of web"), Refused)
    assert len(host.asked) == 1


def test_a_host_that_hangs_up_is_a_lost_connection(host: EsxHost) -> None:
    host.cut = 500_000
    words(lambda: downloaded(host.device()), OSError)


def test_nobody_there_is_a_lost_connection(host: EsxHost) -> None:
    nobody = Device("scsi0:0", "127.0.0.1", 1, Pin("ab" * 20), TICKET)
    words(lambda: Download(nobody, "export of web"), OSError)


def test_an_address_that_is_none_tells_nothing_of_itself(host: EsxHost) -> None:
    odd = Device("scsi0:0", "127.0.0.1", host.port, Pin(host.sha1), TICKET + "\nX: y")
    words(lambda: Download(odd, "export of web"), OSError)
    words(lambda: Upload(odd, "import of web"), OSError)
    assert "ticket" not in repr(odd)


def test_a_disk_goes_up_in_pieces(host: EsxHost) -> None:
    upload = Upload(host.device(), "import of web")
    for at in range(0, len(BODY), 65_536):
        upload.write(BODY[at : at + 65_536])
    upload.write(b"")
    upload.finish()
    upload.close()
    assert host.taken == BODY
    assert host.headers["content-type"] == "application/x-vnd.vmware-streamVmdk"
    assert host.headers["transfer-encoding"] == "chunked"


def test_a_host_that_does_not_take_a_disk_fails_it(host: EsxHost) -> None:
    host.statuses.append(500)
    upload = Upload(host.device(), "import of web")
    upload.write(BODY)
    assert "HTTP 500" in words(upload.finish, Refused)
    upload.close()


def test_a_host_that_hangs_up_during_an_upload_fails_it(host: EsxHost) -> None:
    host.cut = 100_000
    upload = Upload(host.device(), "import of web")

    def work() -> None:
        for _ in range(400):
            upload.write(BODY)
        upload.finish()

    words(work, OSError)
    upload.close()


def test_vddk_is_told_the_thumbprint_of_the_trusted_vcenter_alone(
    server: ScriptedVcenter, connect: Callable[..., Vcenter]
) -> None:
    certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", server.port)))
    told = sha1_thumbprint(connect())
    assert told.replace(":", "").lower() == hashlib.sha1(certificate, usedforsecurity=False).hexdigest()
    with pytest.raises(CertificateRefused):
        sha1_thumbprint(connect(thumbprint="ab" * 32))
    port = server.port
    server.stop()
    with pytest.raises(HostUnreachable):
        sha1_thumbprint(connect(port=port))
