"""Notes for an outside witness: where every machine's chain ended, when, signed with the repository's key.

A note is one line of JSON. Whoever has the repository's public key (in its ``config``) can check it, and it tells him nothing
but how many machines and restore points there are: chains have keyed names. Kept where whoever can write to the repository
cannot (another administrator's file, a web hook, a mailbox), it proves that newest points were taken away or exchanged
(``audit.py``)::

    {"format": "lanfree-witness", "heads": [{"chain": …, "hash": …, "number": …, "point": …}, …],
     "noted_at": …, "repository": …, "signature": …, "version": 1}

Signed is, after ``CONTEXT``, the same JSON without ``signature``, keys sorted, no blanks, in UTF-8 (Ed25519, RFC 8032).
"""

import http.client
import json
import os
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from proxy.errors import ConfigurationError, FormatError, WitnessFailed
from proxy.repository.checking.chain import Head
from proxy.repository.repository import Repository
from proxy.repository.sealing import check_signature

KIND = "lanfree-witness"
VERSION = 1
CONTEXT = b"lanfree repository 2026 witness note\n"
"""In front of what is signed: a note can never be taken for an object of the repository, which begins with a magic."""

# Seconds for each step of a conversation. A witness that needs longer is asked again at the next time.
TIMEOUT = 30.0

_LOCAL = ("localhost", "127.0.0.1", "::1")
_WHAT = "witness note"


@dataclass(frozen=True, slots=True)
class Note:
    """What a witness has. ``repository``: its id, hexadecimal; ``noted_at``: UTC, by the clock of who wrote it."""

    repository: str
    noted_at: datetime
    heads: tuple[Head, ...]


def write_note(repository: Repository, heads: Sequence[Head]) -> bytes:
    """A signed note: one line, line feed included."""
    document = {
        "format": KIND,
        "version": VERSION,
        "repository": repository.settings.id.hex(),
        "noted_at": repository.clock.now().astimezone(UTC).isoformat(),
        "heads": [asdict(head) for head in heads],
    }
    signature = repository.keys.signing.sign(CONTEXT + _text(document))
    return _text({**document, "signature": signature.hex()}) + b"\n"


def read_note(line: bytes, public_key: bytes) -> Note:
    """Check a note; needs no secret, and no repository. Raises ``FormatError``."""
    try:
        document = json.loads(line)
        signature = bytes.fromhex(document.pop("signature"))
        if document["format"] != KIND or document["version"] != VERSION:
            raise FormatError(_WHAT, f"is {document['format']!r}, version {document['version']!r}")
        check_signature(_WHAT, public_key, CONTEXT + _text(document), signature)
        heads = tuple(
            Head(str(h["chain"]), str(h["point"]), int(h["number"]), str(h["hash"])) for h in document["heads"]
        )
        return Note(str(document["repository"]), datetime.fromisoformat(document["noted_at"]), heads)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(_WHAT, f"is malformed: {error!r}") from None


def read_notes(path: Path, public_key: bytes) -> tuple[list[Note], list[str]]:
    """All notes of a witness's file, in order, and what is wrong with lines that are none: a crash cuts lines off, so those
    prove nothing. Raises ``OSError``."""
    notes: list[Note] = []
    wrong: list[str] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                notes.append(read_note(line, public_key))
            except FormatError as error:
                wrong.append(f"{path}, line {number}: {error.message}")
    return notes, wrong


class Witness(Protocol):
    """Who takes a note."""

    def publish(self, note: bytes) -> None:
        """Handed over when this returns. Raises ``WitnessFailed``."""
        ...


@dataclass(frozen=True, slots=True)
class FileWitness:
    """Appends to a file, durably; best on a file system that only appends for us (``chattr +a``), of another machine."""

    path: Path

    def publish(self, note: bytes) -> None:
        try:
            with self.path.open("ab") as file:
                # A line that a crash cut off must not spoil the one behind it.
                torn = file.tell() > 0 and not self._ends_with_line_feed()
                file.write(b"\n" + note if torn else note)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WitnessFailed(str(self.path), error.strerror or str(error)) from None

    def _ends_with_line_feed(self) -> bool:
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
        except PermissionError:
            return False  # write-only: an empty line costs nothing


@dataclass(frozen=True, slots=True)
class HttpWitness:
    """POSTs to an ``https`` address (``http`` only to this machine); any answer from 200 to 299 counts. ``token``: sent as a
    bearer token. Redirections are not followed: they would make the address's owner somebody else. Raises
    ``ConfigurationError`` for another kind of address, and for a token that no header carries."""

    url: str
    token: str = field(default="", repr=False)
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        shown = shown_address(self.url)
        try:
            parts = urlsplit(self.url)
            parts.port  # noqa: B018  # read for what it raises
        except ValueError:
            raise ConfigurationError("witness", f"{shown} is not an address: its host or port is malformed") from None
        if parts.hostname is None or not (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
        ):
            raise ConfigurationError("witness", f"{shown} is not an https address")
        if not _is_sendable(self.url) or " " in self.url:
            raise ConfigurationError("witness", f"{shown} is not an address: it needs percent-encoding")
        if not _is_sendable(self.token):
            raise ConfigurationError("witness", f"the token for {shown} has characters that are not printable ASCII")

    def publish(self, note: bytes) -> None:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json", "User-Agent": "lanfree"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
            try:
                connection.request(
                    "POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), note, headers
                )
                answer = connection.getresponse()
            finally:
                connection.close()
        # UnicodeError: of the host's name, which is encoded before it is looked up (RFC 5890).
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise WitnessFailed(shown_address(self.url), str(error) or type(error).__name__) from None
        if not 200 <= answer.status < 300:
            raise WitnessFailed(shown_address(self.url), f"it answered {answer.status} {answer.reason}")


def shown_address(url: str) -> str:
    """A web address for people, without what may be secret: user, password, query. Of one that is malformed nothing."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the url"
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


def _is_sendable(text: str) -> bool:
    """Whether a header of HTTP carries it as it is."""
    return text.isascii() and text.isprintable()


@dataclass(frozen=True, slots=True)
class MailWitness:
    """Sends a mail with the note as an attachment. ``starttls``: refuse to go on without TLS. ``user`` and ``password``, if the
    server asks for them, need it."""

    host: str
    sender: str
    recipient: str
    port: int = 25
    starttls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if self.user and not self.starttls:
            raise ConfigurationError("witness", f"the password for {self.host} would be sent without TLS")

    def publish(self, note: bytes) -> None:
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.timeout) as server:
                if self.starttls:
                    server.starttls(context=ssl.create_default_context())
                if self.user:
                    server.login(self.user, self.password)
                server.send_message(self._message(note))
        except (OSError, smtplib.SMTPException) as error:
            raise WitnessFailed(f"{self.recipient} by {self.host}", str(error) or type(error).__name__) from None

    def _message(self, note: bytes) -> EmailMessage:
        document = json.loads(note)
        message = EmailMessage()
        message["From"], message["To"] = self.sender, self.recipient
        message["Subject"] = f"Lanfree repository {document['repository'][:8]}: {len(document['heads'])} chains"
        message.set_content(
            f"Where the chains of restore points ended at {document['noted_at']}.\n"
            "Keep this mail: 'lanfree audit --noted FILE' compares the attachment with the repository.\n"
        )
        message.add_attachment(note, maintype="application", subtype="json", filename="lanfree-witness.json")
        return message


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
