"""Syslog messages (RFC 5424) over UDP (RFC 5426), TCP (RFC 6587, octet counting), TLS (RFC 5425), or a Unix datagram socket.

::

    <27>1 2026-11-23T03:12:44.000000Z proxy1 lanfree 4711 failed [lanfree@32473 about="job nightly" …] BOM Lanfree: job …

The structured data's name is of the number that RFC 5612 keeps for examples: Lanfree has no enterprise number of its own.
"""

import os
import socket
from datetime import UTC
from urllib.parse import SplitResult, urlsplit

from appliance.telling.kinds import GRAVITY
from appliance.telling.settings import SYSLOG_PORTS, Notify
from appliance.telling.text import one_line
from appliance.telling.ways.way import Message, address_of, refused, tls
from proxy.errors import ConfigurationError

# "system daemons" in RFC 5424, table 1.
FACILITY = 3

# RFC 5424, 6.1: every receiver takes 480 octets and should take 2048. A datagram that is longer may be cut anywhere.
LONGEST = 2048

_BOM = b"\xef\xbb\xbf"


class Syslog:
    """See ``appliance.telling.settings.Notify``. Over UDP nobody says whether it arrived: TCP or TLS do better."""

    merges = False

    def __init__(self, section: Notify) -> None:
        self._section = section

    def deliver(self, message: Message) -> None:
        """See ``Way``."""
        parts = self._parts()
        packet = formatted(message, hostname=socket.gethostname(), process=os.getpid())
        try:
            if parts.scheme == "unix":
                self._datagram(socket.AF_UNIX, parts.path, packet)
            elif parts.scheme == "udp":
                family, _, _, _, address = self._resolved(parts)
                self._datagram(family, address, packet)
            else:
                self._stream(parts, packet)
        except (OSError, UnicodeError) as error:  # ssl.SSLError is an OSError
            raise refused(self._section, error) from None

    def _parts(self) -> SplitResult:
        where = f"[[notify]] {self._section.name}"
        try:
            parts = urlsplit(address_of(self._section))
            parts.port  # noqa: B018  # read for what it raises
        except ValueError:
            raise ConfigurationError(where, "the address is malformed") from None
        if not (parts.path if parts.scheme == "unix" else parts.scheme in SYSLOG_PORTS and parts.hostname):
            raise ConfigurationError(
                where, "is no address of syslog", hint="udp://host, tcp://host, tls://host or unix:///dev/log"
            )
        return parts

    def _resolved(
        self, parts: SplitResult
    ) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]:
        found = socket.getaddrinfo(parts.hostname, parts.port or SYSLOG_PORTS[parts.scheme], type=socket.SOCK_DGRAM)
        return found[0]  # type: ignore[return-value]  # the fifth form is of Pythons without IPv6

    def _datagram(self, family: int, address: str | tuple[str, int] | tuple[str, int, int, int], packet: bytes) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.settimeout(self._section.timeout)
            sender.sendto(packet, address)

    def _stream(self, parts: SplitResult, packet: bytes) -> None:
        place = (parts.hostname or "", parts.port or SYSLOG_PORTS[parts.scheme])
        with socket.create_connection(place, timeout=self._section.timeout) as plain:
            counted = str(len(packet)).encode() + b" " + packet
            if parts.scheme == "tcp":
                _send(plain, counted)
                return
            with tls(self._section).wrap_socket(plain, server_hostname=parts.hostname) as secure:
                _send(secure, counted)


def _send(connection: socket.socket, packet: bytes) -> None:
    """Closed in order, so that a refusal after the last byte is not taken for success where it is seen in time."""
    connection.sendall(packet)
    connection.shutdown(socket.SHUT_WR)


def formatted(message: Message, *, hostname: str, process: int) -> bytes:
    """One packet, at most ``LONGEST`` bytes, whole characters."""
    event = message.event
    priority = FACILITY * 8 + GRAVITY[event.kind]
    moment = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    facts = {"about": event.about, "job": event.job, "run": event.run, "delivery": message.id}
    data = "".join(f' {name}="{_escaped(value)}"' for name, value in facts.items() if value)
    head = f"<{priority}>1 {moment} {_word(hostname, 255)} lanfree {process} {event.kind.value} [lanfree@32473{data}] "
    words = " | ".join(line for line in (event.title, *event.lines) if line)
    packet = head.encode() + _BOM + one_line(words, LONGEST).encode()
    return packet[:LONGEST].decode(errors="ignore").encode()


def _escaped(value: str) -> str:
    """A PARAM-VALUE, RFC 5424, 6.3.3."""
    text = one_line(value, 160)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _word(text: str, limit: int) -> str:
    """PRINTUSASCII without blanks, or ``-``."""
    return "".join(c for c in text if 33 <= ord(c) <= 126)[:limit] or "-"
