"""A host's NFC service over real TLS: serves and takes streams, and breaks as it is told."""

import datetime
import hashlib
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.hypervisor.vsphere.leases import Device
from proxy.hypervisor.vsphere.tls import Pin

TICKET = "/nfc/52b1f6ce-ticket-of-a-session/disk-0.vmdk"
"""An address whose words must never be seen."""


class EsxHost:
    """``body``: what a GET gets, ``cut`` bytes of it at most; ``statuses``: of the next answers, 200 when there is none.
    ``asked``: every request that came, with its length; ``taken``: what was sent up."""

    def __init__(self, directory: Path) -> None:
        self.body = b""
        self.cut: int | None = None
        self.statuses: deque[int] = deque()
        self.asked: list[tuple[str, str, int]] = []
        self.headers: dict[str, str] = {}
        self.taken = b""
        self.certificate = directory / "host.pem"
        self.der = _certificate(self.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])

    @property
    def sha1(self) -> str:
        return hashlib.sha1(self.der, usedforsecurity=False).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def device(self, pin: str = "") -> Device:
        return Device("scsi0:0", "127.0.0.1", self.port, Pin(pin or self.sha1), TICKET)


@contextmanager
def esx_host(directory: Path) -> Iterator[EsxHost]:
    host = EsxHost(directory)
    thread = threading.Thread(target=host.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.server.shutdown()
        host.server.server_close()
        thread.join(10)


def _handler(host: EsxHost) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.asked.append(("GET", self.path, 0))
            if not self._refused():
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                sent = host.body if host.cut is None else host.body[: host.cut]
                for at in range(0, len(sent), 70_000):
                    piece = sent[at : at + 70_000]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if host.cut is None:
                    self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def do_POST(self) -> None:
            host.headers = {name.lower(): value for name, value in self.headers.items()}
            taken = bytearray()
            while True:
                length = int(self.rfile.readline(), 16)
                taken += self.rfile.read(length)
                self.rfile.readline()
                if not length or (host.cut is not None and len(taken) > host.cut):
                    break
            host.taken = bytes(taken)
            host.asked.append(("POST", self.path, len(taken)))
            self.close_connection = True
            if host.cut is None and not self._refused():
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _refused(self) -> bool:
            status = host.statuses.popleft() if host.statuses else 200
            if status == 200:
                return False
            self.send_response(status, f"no {self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True

        def log_message(self, *words: object) -> None:
            """Nothing."""

    return Handler


def _certificate(path: Path) -> bytes:
    """Written with its key; returned as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "esx1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return certificate.public_bytes(serialization.Encoding.DER)
