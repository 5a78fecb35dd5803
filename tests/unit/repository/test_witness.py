"""Notes are signed, are checked with the public key alone, and reach a file, a web hook or a mailbox, or an error says why."""

import datetime as dates
import email
import ipaddress
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy import repository as repositories
from proxy.errors import ConfigurationError, FormatError, WitnessFailed
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, settings
from proxy.repository.checking.audit import audit, heads
from proxy.repository.checking.chain import Head, Trouble
from proxy.repository.checking.witness import (
    FileWitness,
    HttpWitness,
    MailWitness,
    read_note,
    read_notes,
    write_note,
)

pytestmark = pytest.mark.slow

Backup = Callable[..., RestorePoint]
HEADS = (
    Head("0011223344556677", "20260101T000000.000000Z-00000000", 7, "ab" * 32),
    Head("8899aabbccddeeff", "x", 1, "cd"),
)


def test_a_note_is_checked_with_the_public_key_of_the_config_alone(store: MemoryStore, repository: Repository) -> None:
    line = write_note(repository, HEADS)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    public = settings.decode(store.get("config")).public_key
    note = read_note(line, public)
    assert note.heads == HEADS
    assert note.repository == repository.settings.id.hex()
    assert note.noted_at.tzinfo is not None


def test_a_note_names_no_machine(repository: Repository, backup: Backup) -> None:
    backup(repository, os.urandom(100), "secret-machine")
    line = write_note(repository, heads(repository))
    assert b"secret-machine" not in line
    assert len(json.loads(line)["heads"]) == 1


@pytest.mark.parametrize("change", ["repository", "noted_at", "heads", "version", "format", "signature", "extra"])
def test_a_changed_note_is_refused(repository: Repository, change: str) -> None:
    document = json.loads(write_note(repository, HEADS))
    document[change] = {"heads": document["heads"][:1], "version": 2, "signature": "00" * 64}.get(change, "other")
    with pytest.raises(FormatError):
        read_note(json.dumps(document).encode(), repository.settings.public_key)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"null", b'{"signature": "00"}', b"\xff", b"[" * 100_000, b'{"signature": 5}']
)
def test_what_is_no_note_is_refused(repository: Repository, line: bytes) -> None:
    with pytest.raises(FormatError):
        read_note(line, repository.settings.public_key)


def test_a_note_of_another_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    with repositories.create(MemoryStore(), secret=None, cache=tmp_path / "other") as other:
        line = write_note(other, HEADS)
    with pytest.raises(FormatError, match="signature"):
        read_note(line, repository.settings.public_key)


def test_notes_in_a_file_tell_of_points_that_were_taken_away(
    repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    witness = FileWitness(tmp_path / "notes")
    points = []
    for _ in range(3):
        points.append(backup(repository, os.urandom(100)))
        witness.publish(write_note(repository, heads(repository)))
    notes, wrong = read_notes(tmp_path / "notes", repository.settings.public_key)
    assert wrong == []
    assert [note.heads[0].point for note in notes] == [p.id for p in points]
    noted = [head for note in notes for head in note.heads]
    assert list(audit(repository, noted)) == []
    repository.store.delete(repository.ledger.name(points[2]))
    assert [(f.trouble, f.point) for f in audit(repository, noted)] == [(Trouble.TRUNCATED, points[2].id)]


def test_a_line_that_was_cut_off_spoils_no_other(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    line = write_note(repository, HEADS)
    path.write_bytes(line + line[:50])
    FileWitness(path).publish(line)
    notes, wrong = read_notes(path, repository.settings.public_key)
    assert len(notes) == 2
    assert len(wrong) == 1
    assert "line 2" in wrong[0]


def test_a_file_that_cannot_be_written_is_told(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(WitnessFailed, match="No such file"):
        FileWitness(tmp_path / "nowhere" / "notes").publish(write_note(repository, HEADS))


# ------------------------------------------------------------------------------------------------- HTTP


class _Hook(BaseHTTPRequestHandler):
    """Answers with the status in the path, and keeps what came."""

    received: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, dict(self.headers), body))
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Location", "/200/elsewhere")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing on the terminal."""


class Hook:
    """A web hook on this machine, with a certificate for it, or without TLS."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        handler = type("Handler", (_Hook,), {"received": self.received})
        self._server = HTTPServer(("127.0.0.1", 0), handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Self-signed, for 127.0.0.1, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "witness")])
    now = dates.datetime.now(dates.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dates.timedelta(days=1))
        .not_valid_after(now + dates.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*plain))
    return path


@pytest.fixture
def secure_hook(certificate: Path) -> Iterator[Hook]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Hook(context)
    yield made
    made.close()


def test_a_web_hook_gets_the_note_and_the_token(repository: Repository, hook: Hook) -> None:
    line = write_note(repository, HEADS)
    HttpWitness(f"http://127.0.0.1:{hook.port}/204/notes?from=lanfree", token="t0ken").publish(line)
    ((path, headers, body),) = hook.received
    assert path == "/204/notes?from=lanfree"
    assert body == line
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_any_other_answer_than_success_is_an_error_and_nothing_is_followed(
    repository: Repository, hook: Hook, status: int
) -> None:
    with pytest.raises(WitnessFailed, match=str(status)):
        HttpWitness(f"http://localhost:{hook.port}/{status}").publish(write_note(repository, HEADS))
    assert len(hook.received) == 1


def test_a_certificate_is_demanded_that_is_trusted(
    repository: Repository, secure_hook: Hook, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = HttpWitness(f"https://127.0.0.1:{secure_hook.port}/200")
    with pytest.raises(WitnessFailed, match="certificate"):
        witness.publish(write_note(repository, HEADS))
    assert secure_hook.received == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    witness.publish(write_note(repository, HEADS))
    assert len(secure_hook.received) == 1


def test_a_silent_hook_is_told_in_time(repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        witness = HttpWitness(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)
        with pytest.raises(WitnessFailed, match="timed out"):
            witness.publish(write_note(repository, HEADS))


@pytest.mark.parametrize(
    "url", ["http://example.com/", "ftp://localhost/", "https:///x", "notes", "http://user:pw@host/?s"]
)
def test_an_address_without_tls_is_refused_and_its_secrets_are_not_told(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HttpWitness(url)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://host:99999/",
        "https://host:x/",
        "https://[::1/notes",
        "https://host/n\u00f6tes",
        "https://host/two words",
        "https://user:pw@host:0x50/?pw",
    ],
)
def test_an_address_that_could_never_be_asked_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HttpWitness(url)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize("token", ["t0k\nen", "t0k\x00en", "t0k\x7fen", "t0k\u00e9n", "t0k\u2028en"])
def test_a_token_that_no_header_carries_is_refused_and_not_told(token: str) -> None:
    with pytest.raises(ConfigurationError, match="token") as refused:
        HttpWitness("https://host/notes?s3cret", token=token)
    assert "t0k" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_host_name_that_no_name_server_can_know_is_told_as_a_failure(repository: Repository) -> None:
    witness = HttpWitness(f"https://{'a' * 64}.example/")
    with pytest.raises(WitnessFailed, match="label"):
        witness.publish(write_note(repository, HEADS))


def test_blank_lines_between_notes_are_nothing(repository: Repository, tmp_path: Path) -> None:
    line = write_note(repository, HEADS)
    (tmp_path / "notes").write_bytes(b"\n" + line + b" \r\n\n" + line)
    notes, wrong = read_notes(tmp_path / "notes", repository.settings.public_key)
    assert (len(notes), wrong) == (2, [])


def test_secrets_are_not_shown() -> None:
    shown = repr(HttpWitness("https://h/", token="t0ken")) + repr(
        MailWitness("h", "a", "b", starttls=True, password="pw")
    )
    assert "t0ken" not in shown
    assert "pw" not in shown.replace("password", "")


# ------------------------------------------------------------------------------------------------- mail


class MailServer:
    """Takes one mail (RFC 5321), or refuses its recipient."""

    def __init__(self, *, refuse: bool = False) -> None:
        self._refuse = refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.envelope: list[str] = []
        self.mail = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rwb") as talk:

            def say(text: str) -> None:
                talk.write(text.encode() + b"\r\n")
                talk.flush()

            say("220 ready")
            for line in talk:
                word = line.split()[0].upper()
                if word == b"DATA":
                    say("354 go on")
                    while (line := talk.readline()) != b".\r\n":
                        self.mail += line
                elif word in (b"MAIL", b"RCPT"):
                    self.envelope.append(line.decode().strip())
                if word == b"QUIT":
                    say("221 bye")
                    return
                say("550 no such user" if self._refuse and word == b"RCPT" else "250 fine")

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


def test_a_mail_carries_the_note(repository: Repository) -> None:
    server = MailServer()
    line = write_note(repository, HEADS * 50)
    MailWitness("127.0.0.1", "lanfree@example.com", "witness@example.com", port=server.port).publish(line)
    server.close()
    assert ["lanfree@example.com" in server.envelope[0], "witness@example.com" in server.envelope[1]] == [True, True]
    message = email.message_from_bytes(server.mail)
    attached = message.get_payload()[1].get_payload(decode=True)
    assert read_note(attached, repository.settings.public_key).heads == HEADS * 50
    assert repository.settings.id.hex()[:8] in message["Subject"]


def test_a_mail_that_is_not_taken_is_told(repository: Repository) -> None:
    server = MailServer(refuse=True)
    witness = MailWitness("127.0.0.1", "a@example.com", "b@example.com", port=server.port)
    with pytest.raises(WitnessFailed, match=r"b@example\.com"):
        witness.publish(write_note(repository, HEADS))
    server.close()


def test_a_mail_server_without_tls_gets_neither_password_nor_note(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match="without TLS"):
        MailWitness("h", "a", "b", user="u", password="pw")
    server = MailServer()
    with pytest.raises(WitnessFailed, match="STARTTLS"):
        MailWitness("127.0.0.1", "a@b.c", "d@e.f", port=server.port, starttls=True).publish(
            write_note(repository, HEADS)
        )
    server.close()
    assert server.mail == b""
