"""Whom a client trusts: a server's own authority, kept when a person has compared its fingerprint, as SSH keeps host keys."""

import socket
import ssl
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from proxy.errors import CertificateRefused, ConfigurationError, ServerAway

PORT = 443
"""Of an ``https`` address that names none."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What signed a server's certificate, or that itself. ``pem``: to be kept; ``fingerprint``: SHA-256, for people."""

    pem: str
    fingerprint: str


def place_of(url: str) -> tuple[str, int]:
    """Host and port. Raises ``ConfigurationError``."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise ConfigurationError("the server's address", str(error)) from None
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ConfigurationError("the server's address", "https://NAME or https://NAME:PORT is one")
    return parts.hostname, port


def shown_by(url: str, *, timeout: float = 10.0) -> Authority:
    """The authority that the server shows now: nobody vouches for it yet. Raises ``ServerAway``, ``ConfigurationError``."""
    host, port = place_of(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is looked at, and nothing is said to it
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            chain = _chain(tls)
    except OSError as error:
        raise ServerAway(f"{host}:{port}", error.strerror or str(error)) from None
    return Authority(ssl.DER_cert_to_PEM_cert(chain[-1]), fingerprint(chain[-1]))


def context_for(authority_pem: str) -> ssl.SSLContext:
    """Trusts what this authority signed, for the name that is asked, and nobody else. Raises ``CertificateRefused``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A server's certificate without an authority is its own: it is trusted as it is, though it may sign nothing.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=authority_pem)
    except ssl.SSLError as error:
        raise CertificateRefused("the kept authority", "a certificate", error.reason or "none") from None
    return context


def fingerprint(der: bytes) -> str:
    """``AB:CD:…``, SHA-256."""
    return ":".join(f"{byte:02X}" for byte in sha256(der).digest())


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """DER, as the server sent it. Python has a public name for it since 3.13."""
    public: Any = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        return [bytes(one) for one in public()]
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in inner.get_unverified_chain()]
