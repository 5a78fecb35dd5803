"""HTTPS to a server that is known beforehand: by the SHA-256 of its certificate, or by the authority that signed it.

The check is done in the connection itself, after every handshake and before the first byte is sent: pyVmomi's own
thumbprint check is left out once its connection pool has made a first connection, and a session would go to anybody then.
"""

import hashlib
import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import CertificateRefused, ConfigurationError

# A server that takes no connection in this time is called silent; a handshake takes milliseconds to a second.
CONNECT_TIMEOUT = 20.0


class NotConnected(OSError):
    """No connection came about: nothing of the request was sent, so asking again is safe whatever was asked."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What the server must show. ``digest``: hexadecimal, lower case, no colons; of the algorithm that its length tells
    (64: SHA-256; 40: SHA-1, which only vCenter's own word about its hosts is taken for). Empty: not pinned."""

    digest: str = ""
    ca_bundle: Path | None = None

    def context(self, place: str) -> ssl.SSLContext:
        """For the handshake. Raises ``ConfigurationError`` for a bundle that cannot be read."""
        if self.ca_bundle is None and not self.digest:
            raise ConfigurationError(place, "neither a thumbprint nor a CA bundle is known for it")
        if self.ca_bundle is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False  # the digest names one certificate, which says more than a name
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            return ssl.create_default_context(cafile=str(self.ca_bundle))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                place, f"CA bundle {self.ca_bundle} cannot be used: {error}", hint="it must be a readable PEM file"
            ) from None

    def check(self, place: str, certificate: bytes) -> None:
        """``certificate``: DER. Raises ``CertificateRefused``."""
        if not self.digest:
            return
        seen = _digest(certificate, len(self.digest))
        if seen != self.digest:
            raise CertificateRefused(place, colons(self.digest), colons(_digest(certificate, 64)))


class PinnedConnection(http.client.HTTPSConnection):
    """An HTTPS connection that exists only to the pinned server. ``timeout``: seconds for each answer."""

    def __init__(self, host: str, port: int | None = None, *, pin: Pin, timeout: float) -> None:
        self._place = f"{host}:{port or http.client.HTTPS_PORT}"
        super().__init__(host, port, timeout=timeout, context=pin.context(self._place))
        self._pin = pin
        self._patience = timeout

    def connect(self) -> None:
        """Raises ``CertificateRefused``, or ``NotConnected`` when nobody answers."""
        self.timeout = min(CONNECT_TIMEOUT, self._patience)
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefused(
                self._place, "one that the CA bundle vouches for", self._seen(), why=error.verify_message
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NotConnected(_words(error)) from error
        try:
            self._pin.check(self._place, self.sock.getpeercert(binary_form=True) or b"")
        except CertificateRefused:
            self.close()
            raise
        self.sock.settimeout(self._patience)

    def _seen(self) -> str:
        """Thumbprint of whoever answers there, for the message alone: nothing is sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with (
                socket.create_connection((self.host, self.port or http.client.HTTPS_PORT), CONNECT_TIMEOUT) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as secure,
            ):
                return colons(_digest(secure.getpeercert(binary_form=True) or b"", 64))
        except OSError:
            return "(gone before it could be looked at)"


def colons(digest: str) -> str:
    """As people and vCenter write a thumbprint: ``AB:CD:…``."""
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()


def _digest(certificate: bytes, length: int) -> str:
    if length == 40:
        return hashlib.sha1(certificate, usedforsecurity=False).hexdigest()
    return hashlib.sha256(certificate).hexdigest()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
