"""Streams to and from a host over HTTPS: what a lease's addresses are for. No error tells an address: it holds a ticket."""

import hashlib
import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.errors import HostUnreachable
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.leases import Device
from proxy.hypervisor.vsphere.tls import PinnedConnection, colons
from proxy.units import KiB

TIMEOUT = 300.0
"""Seconds without a byte: a host that looks for data in a large empty disk sends a sign of life every 10 to 45 seconds, and an
array's failover takes a minute."""

BUSY_PAUSES = (2.0, 5.0, 15.0)
"""Before asking again when a host says that it serves all that it can."""

DISK = "application/x-vnd.vmware-streamVmdk"

CHUNK = 256 * KiB
"""Bytes that are sent at once: a grain that packs well is half a KiB, and each chunk costs a system call and a TLS record."""


class Download:
    """A host's answer with one disk. ``read`` raises ``OSError``."""

    def __init__(self, device: Device, what: str) -> None:
        self._connection, self._answer = _asked(device, what)

    def read(self, length: int, /) -> bytes:
        """At most ``length`` bytes; fewer only at the end."""
        with _told():
            return self._answer.read(length)

    def close(self) -> None:
        """Hangs up, whatever is still to come. Allowed twice."""
        self._answer.close()
        self._connection.close()


def _asked(device: Device, what: str) -> tuple[PinnedConnection, http.client.HTTPResponse]:
    """Raises ``Refused``, ``CertificateRefused``, ``OSError``."""
    pauses = iter(BUSY_PAUSES)
    while True:
        connection = PinnedConnection(device.host, device.port, pin=device.pin, timeout=TIMEOUT)
        try:
            with _told():
                connection.request("GET", device.path)
                answer = connection.getresponse()
            if answer.status == http.client.OK:
                return connection, answer
            pause = next(pauses, None)
            if answer.status != http.client.SERVICE_UNAVAILABLE or pause is None:
                raise _refused(what, device, answer)
        except BaseException:
            connection.close()
            raise
        connection.close()
        time.sleep(pause)


class Upload:
    """One disk on its way to its host, in pieces of unknown number (chunked). Raises ``OSError``, ``Refused``."""

    def __init__(self, device: Device, what: str) -> None:
        self._device = device
        self._what = what
        self._waiting = bytearray()
        self._connection = PinnedConnection(device.host, device.port, pin=device.pin, timeout=TIMEOUT)
        try:
            with _told():
                self._connection.putrequest("POST", device.path)
                self._connection.putheader("Content-Type", DISK)
                self._connection.putheader("Transfer-Encoding", "chunked")
                self._connection.endheaders()
        except BaseException:
            self._connection.close()
            raise

    def write(self, data: bytes, /) -> None:
        """The next bytes: kept until there are enough of them."""
        self._waiting += data
        if len(self._waiting) >= CHUNK:
            self._send()

    def finish(self) -> None:
        """Returns when the host says that it has taken all of it."""
        self._send()
        with _told():
            self._connection.send(b"0\r\n\r\n")
            answer = self._connection.getresponse()
            answer.read()
        if answer.status not in {http.client.OK, http.client.CREATED, http.client.NO_CONTENT}:
            raise _refused(self._what, self._device, answer)

    def close(self) -> None:
        """Hangs up. Allowed twice."""
        self._connection.close()

    def _send(self) -> None:
        if self._waiting:  # a chunk without bytes would be the end
            with _told():
                self._connection.send(b"%x\r\n%b\r\n" % (len(self._waiting), bytes(self._waiting)))
            self._waiting.clear()


def sha1_thumbprint(vcenter: Vcenter) -> str:
    """SHA-1 of vCenter's certificate with colons, as VDDK wants it, of a server that showed what is trusted (SHA-256, or the
    authority). Raises ``CertificateRefused``, ``HostUnreachable``."""
    connection = vcenter.http()
    try:
        connection.connect()
        certificate = connection.sock.getpeercert(binary_form=True) or b""
    except OSError as error:
        raise HostUnreachable(vcenter.settings.host, str(error), hint="look whether vCenter runs") from None
    finally:
        connection.close()
    return colons(hashlib.sha1(certificate, usedforsecurity=False).hexdigest())


def _refused(what: str, device: Device, answer: http.client.HTTPResponse) -> Refused:
    refusal = Refusal.BUSY if answer.status == http.client.SERVICE_UNAVAILABLE else Refusal.HOST
    hint = "fewer jobs at once from that host" if refusal is Refusal.BUSY else ""
    return Refused(what, f"{device.host} answers HTTP {answer.status}", refusal, hint=hint)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong on the way, as an ``OSError`` that people may read."""
    try:
        yield
    except http.client.InvalidURL:
        raise ConnectionError("the lease's address cannot be asked for") from None
    except http.client.HTTPException as error:
        raise ConnectionError(f"the host's answer broke off ({type(error).__name__})") from None
