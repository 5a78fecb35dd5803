"""A vCenter that does as it is told: a few calls of the API over real TLS and HTTP, with every way of answering badly.

What the real simulator cannot do at the right moment (hang up in mid-call, answer 503, show another certificate), this does.
"""

import datetime
import hashlib
import ipaddress
import re
import socket
import ssl
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.hypervisor.vsphere.settings import VsphereSettings

VERSIONS = b"""<?xml version="1.0"?><namespaces version="1.0"><namespace><name>urn:vim25</name><version>99.9.9.9</version>
<priorVersions><version>8.0.3.0</version><version>6.5</version></priorVersions></namespace></namespaces>"""

CONTENT = """<returnval><rootFolder type="Folder">group-d1</rootFolder>
<propertyCollector type="PropertyCollector">propertyCollector</propertyCollector>
<viewManager type="ViewManager">ViewManager</viewManager>
<about><name>scripted</name><fullName>scripted</fullName><vendor>x</vendor><version>8.0.3</version><build>1</build>
<osType>x</osType><productLineId>vpx</productLineId><apiType>VirtualCenter</apiType><apiVersion>8.0.3.0</apiVersion></about>
<sessionManager type="SessionManager">SessionManager</sessionManager>
<authorizationManager type="AuthorizationManager">AuthorizationManager</authorizationManager></returnval>"""

ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<soapenv:Body>{}</soapenv:Body></soapenv:Envelope>"
)

TIME = "<returnval>2026-11-22T12:00:00Z</returnval>"

CUT = "cut"
"""An answer that never comes: the connection is closed."""


def fault(name: str, inside: str = "", words: str = "no") -> str:
    """A SOAP fault to script as an answer."""
    detail = f'<{name}Fault xmlns="urn:vim25" xsi:type="{name}">{inside}</{name}Fault>'
    return f"<soapenv:Fault><faultcode>x</faultcode><faultstring>{words}</faultstring><detail>{detail}</detail></soapenv:Fault>"


class ScriptedVcenter:
    """``script(method, answer, …)``: what the next calls of a method get: ``CUT``, ``"503"``, ``fault(…)``, or the XML inside
    of the response. Without a script, logging in works and everything needs a session. ``calls`` counts, by method."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.calls: Counter[str] = Counter()
        self.bodies: dict[str, str] = {}
        self.passwords: list[str] = []
        self.sessions: set[str] = set()
        self.rest: dict[str, tuple[int, str]] = {}
        """``METHOD /path`` -> status and body, of the REST interface; all else is 404."""
        self.rest_first: defaultdict[str, deque[tuple[int, str]]] = defaultdict(deque)
        """What comes before that; a status of 0: 200, but the answer breaks off."""
        self.rest_calls: list[tuple[str, str, dict[str, str]]] = []
        self.end_after = 0
        """All sessions end at every so-manieth call of a method."""
        self.connections: list[socket.socket] = []
        self.scripted: defaultdict[str, deque[str]] = defaultdict(deque)
        self.certificate = directory / "certificate.pem"
        self.password_file = directory / "password"
        self.password_file.write_text("secret-1\nsecond line\n")
        self.password_file.chmod(0o600)
        self.thumbprint = self.new_certificate()
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def port(self) -> int:
        return self._port

    def settings(self, **changed: object) -> VsphereSettings:
        given: dict[str, object] = {
            "name": "scripted",
            "host": "127.0.0.1",
            "user": "backup@vsphere.local",
            "password_file": self.password_file,
            "port": self.port,
            "thumbprint": self.thumbprint,
            "call_timeout": 5.0,
            "restart_patience": 5.0,
        }
        return VsphereSettings(**{**given, **changed})  # type: ignore[arg-type] # facts by keyword, checked at run time

    def script(self, method: str, *answers: str) -> None:
        self.scripted[method].extend(answers)

    def end_sessions(self) -> None:
        self.sessions.clear()

    def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._server = _server(self, self._port, context)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """As a vCenter that restarts: no port, no session."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            while self.connections:
                with suppress(OSError):
                    self.connections.pop().shutdown(socket.SHUT_RDWR)
        self.sessions.clear()

    def new_certificate(self) -> str:
        """Made, written, and its SHA-256 returned; shown from the next ``start`` on."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scripted vCenter")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.certificate.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, kind, plain))
        return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def answer(self, method: str, body: str, cookie: str) -> tuple[int, str]:
        """Status and what stands in the SOAP body; status 0 hangs up."""
        self.calls[method] += 1
        self.bodies[method] = body
        if self.end_after and self.calls[method] % self.end_after == 0:
            self.end_sessions()
        if self.scripted[method]:
            said = self.scripted[method].popleft()
            if said == CUT:
                return 0, ""
            if said.isdecimal():
                return int(said), ""
            return (500, said) if said.startswith("<soapenv:Fault>") else (200, self._response(method, said))
        if method == "RetrieveServiceContent":
            return 200, self._response(method, CONTENT)
        if method == "Login":
            return self._log_in(body)
        if not self.sessions.intersection(re.findall(r'vmware_soap_session="?([\w-]+)', cookie)):
            inside = '<object type="Folder">group-d1</object><privilegeId>System.View</privilegeId>'
            return 500, fault("NotAuthenticated", inside, "The session is not authenticated.")
        return 200, self._response(method, TIME if method == "CurrentTime" else "")

    def _log_in(self, body: str) -> tuple[int, str]:
        self.passwords += re.findall(r"<password[^>]*>(.*?)</password>", body)
        if self.passwords[-1] != self.password_file.read_text().splitlines()[0]:
            return 500, fault("InvalidLogin", words="Cannot complete login due to an incorrect user name or password.")
        self.sessions.add(f"session-{self.calls['Login']}")
        user = "<userName>u</userName><fullName>u</fullName><loginTime>2026-11-22T12:00:00Z</loginTime>"
        rest = (
            "<lastActiveTime>2026-11-22T12:00:00Z</lastActiveTime><locale>en</locale><messageLocale>en</messageLocale>"
        )
        return 200, self._response("Login", f"<returnval><key>k</key>{user}{rest}</returnval>")

    def _response(self, method: str, inside: str) -> str:
        return f'<{method}Response xmlns="urn:vim25">{inside}</{method}Response>'


def _server(vcenter: ScriptedVcenter, port: int, context: ssl.SSLContext) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10
        disable_nagle_algorithm = True
        wbufsize = -1  # an answer is one write: two small ones would wait for each other's acknowledgement

        def setup(self) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            vcenter.connections.append(self.request)
            super().setup()

        def do_PUT(self) -> None:
            self._rest()

        def do_DELETE(self) -> None:
            self._rest()

        def do_GET(self) -> None:
            if self.path.startswith(("/rest/", "/api/", "/folder/")):
                self._rest()
                return
            vcenter.calls["GET"] += 1
            said = vcenter.scripted["GET"].popleft() if vcenter.scripted["GET"] else ""
            if said.isdecimal():
                self._send(int(said), b"")
            else:
                self._send(200, said.encode() or VERSIONS)

        def _rest(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            vcenter.rest_calls.append(
                (f"{self.command} {self.path}", self.rfile.read(length).decode(), dict(self.headers))
            )
            again = vcenter.rest_first[f"{self.command} {self.path}"]
            status, said = again.popleft() if again else vcenter.rest.get(f"{self.command} {self.path}", (404, ""))
            if status == 0:
                self._send(200, said.encode(), promised=len(said) + 100)
                self.close_connection = True
                self.request.shutdown(socket.SHUT_RDWR)
            else:
                self._send(status, said.encode())

        def do_POST(self) -> None:
            if self.path.startswith(("/rest/", "/api/")):
                self._rest()
                return
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found = re.search(r"<soapenv:Body>\s*<(\w+)", body)
            assert found is not None
            status, said = vcenter.answer(found[1], body, self.headers.get("Cookie", ""))
            if status == 0:
                self.close_connection = True
                self.request.shutdown(socket.SHUT_RDWR)
                return
            session = f"session-{vcenter.calls['Login']}" if found[1] == "Login" and status == 200 else ""
            stray = "of-no-login" if "NotAuthenticated" in said else ""  # vCenter gives strangers a cookie, too
            self._send(status, ENVELOPE.format(said).encode(), session or stray)

        def _send(self, status: int, body: bytes, session: str = "", promised: int = 0) -> None:
            self.send_response(status)
            if session:
                self.send_header("Set-Cookie", f'vmware_soap_session="{session}"; Path=/')
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(promised or len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients that do not like the certificate hang up: that is what some tests are about

    return Server(("127.0.0.1", port), Handler)


@contextmanager
def scripted_vcenter(directory: Path) -> Iterator[ScriptedVcenter]:
    vcenter = ScriptedVcenter(directory)
    try:
        yield vcenter
    finally:
        vcenter.stop()
