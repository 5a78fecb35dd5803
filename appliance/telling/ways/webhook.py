"""Webhooks: one JSON document a message, posted and signed.

::

    POST /path HTTP/1.1
    Content-Type: application/json
    X-Lanfree-Delivery: 018f…              the same for every attempt of one message
    X-Lanfree-Timestamp: 1795392000        seconds since 1970, of this attempt
    X-Lanfree-Signature: sha256=9c1e…      HMAC-SHA-256 with the shared secret, hexadecimal, over
                                           the timestamp, a full stop, and the body

A receiver computes the signature anew, compares in constant time, and refuses timestamps that are minutes old: a message that
was listened to cannot be sent again. Any answer from 200 to 299 counts as taken.
"""

import contextlib
import hmac
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import SplitResult, urlsplit

from appliance.telling.secrets import private_line
from appliance.telling.settings import LOCAL, Notify
from appliance.telling.ways.way import Message, address_of, refused, tls
from proxy.errors import ConfigurationError, NotTold

FORMAT = "lanfree-event"
VERSION = 1

# 4xx that a later attempt may mend: request timeout, too early, too many requests.
_PASSING = frozenset({408, 425, 429})


class Webhook:
    """See ``appliance.telling.settings.Notify``. Redirections are not followed: they would make the address's owner somebody
    else, and a signed document goes to nobody else."""

    merges = False

    def __init__(self, section: Notify) -> None:
        self._section = section

    def deliver(self, message: Message) -> None:
        """See ``Way``."""
        parts = _checked(self._section.name, address_of(self._section))
        body = document(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "lanfree",
            "X-Lanfree-Delivery": message.id,
        } | self._signature(body, int(time.time()))
        connection = self._connection(parts)
        try:
            with _limited(connection, self._section.timeout):
                connection.request(
                    "POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers
                )
                answer = connection.getresponse()
        # UnicodeError: of the host's name, which is encoded before it is looked up (RFC 5890).
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise refused(self._section, error) from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            self._complain(answer.status)

    def _complain(self, status: int) -> None:
        hint = ""
        if 300 <= status < 400:
            hint = "write the address that it redirects to into the configuration"
        elif 400 <= status < 500 and status not in _PASSING:
            hint = "check address and secret: it will not take the message as it is"
        raise NotTold(self._section.name, f"it answered {status} {http.client.responses.get(status, '')}", hint=hint)

    def _signature(self, body: bytes, now: int) -> dict[str, str]:
        if self._section.secret_file is None:
            return {}
        return {
            "X-Lanfree-Timestamp": str(now),
            "X-Lanfree-Signature": signature(private_line(self._section.secret_file), now, body),
        }

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        host, limit = parts.hostname or "", self._section.timeout
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=limit, context=tls(self._section))
        return http.client.HTTPConnection(host, parts.port, timeout=limit)


def document(message: Message) -> bytes:
    """The body."""
    event = message.event
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "id": message.id,
        "kind": event.kind.value,
        "at": event.at.isoformat(),
        "about": event.about,
        "title": event.title,
        "text": event.text,
        "job": event.job,
        "run": event.run,
        "facts": dict(event.facts),
    }
    return json.dumps(facts).encode()


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """For the header, and for a receiver's comparison."""
    return "sha256=" + hmac.new(secret.encode(), str(timestamp).encode() + b"." + body, sha256).hexdigest()


def _checked(name: str, url: str) -> SplitResult:
    where = f"[[notify]] {name}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # read for what it raises
    except ValueError:
        raise ConfigurationError(where, "the address is malformed") from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)
    if not parts.hostname or not secure:
        raise ConfigurationError(where, "the address is not an https one")
    if parts.username or parts.password:
        raise ConfigurationError(where, "the address holds a password", hint="receivers check the signature instead")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ConfigurationError(where, "the address needs percent-encoding")
    return parts


@contextlib.contextmanager
def _limited(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """The socket's own limit begins anew with every byte: somebody who answers a byte a second would hold us for hours."""

    def end() -> None:
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
