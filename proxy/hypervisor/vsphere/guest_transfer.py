"""One file on its way into a guest: PUT at the address that vSphere gave, at the machine's host. No error tells the address: it
holds a ticket.
"""

import http.client
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from proxy.errors import GuestAgentUnavailable, GuestRefused
from proxy.guest_files import counted
from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.leases import pin_of
from proxy.hypervisor.vsphere.settings import HTTPS_PORT
from proxy.hypervisor.vsphere.tls import Pin, PinnedConnection

# Seconds without a byte: the guest's disk may be slow, and a machine may be moved meanwhile.
TIMEOUT = 120.0

_TAKEN = {http.client.OK, http.client.CREATED, http.client.NO_CONTENT}


def put(vcenter: Vcenter, owner: Any, name: str, *, url: str, size: int, pieces: Iterable[bytes]) -> None:
    """Send ``size`` bytes. ``owner``: the machine's host as vCenter knows it; ``name``: the machine's, for people.

    Raises ``GuestRefused``, ``GuestAgentUnavailable`` (it broke off), ``CertificateRefused``, what ``pieces`` raises.
    """
    parts = urlsplit(url)
    named = None if parts.hostname in {None, "*"} else str(parts.hostname)
    host = named or vcenter.settings.host
    port = parts.port or (HTTPS_PORT if named else vcenter.settings.port)
    if parts.scheme != "https":
        raise GuestRefused(name, "a file", f"host {host} names an address for it that is none of HTTPS")
    connection = PinnedConnection(host, port, pin=_pin(vcenter, owner, host, port), timeout=TIMEOUT)
    try:
        with _told(name, host):
            connection.putrequest("PUT", f"{parts.path}?{parts.query}" if parts.query else parts.path)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
        for piece in counted(name, size, pieces):
            with _told(name, host):
                connection.send(piece)
        with _told(name, host):
            answer = connection.getresponse()
            answer.read()
    finally:
        connection.close()
    if answer.status not in _TAKEN:
        hint = "is there space in the guest?"
        raise GuestRefused(name, "a file", f"host {host} answers HTTP {answer.status}", hint=hint)


def _pin(vcenter: Vcenter, owner: Any, host: str, port: int) -> Pin:
    """What the host must show: the certificate that vCenter knows of it."""
    if (host, port) == (vcenter.settings.host, vcenter.settings.port):
        return vcenter.pin
    facts = collector.read_one(vcenter, owner, "summary.config").get("summary.config")
    certificate = str(getattr(facts, "sslCertificate", None) or "")
    return pin_of(vcenter, certificate, str(getattr(facts, "sslThumbprint", None) or ""), host, port)


@contextmanager
def _told(name: str, host: str) -> Iterator[None]:
    """What goes wrong on the way, as an error of ours; what the content's source raises never passes here."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        why = f"the transfer to host {host} broke off ({type(error).__name__})"
        raise GuestAgentUnavailable(name, why, hint="push again: what is there whole is not sent twice") from None
