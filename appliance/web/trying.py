"""A first connection to a hypervisor that somebody wants to add. Whatever is said there stays in the log: an answer that
repeated it would let people read what listens anywhere in the network.
"""

import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from api.schemas.hypervisors import Certificate
from appliance import config, operations
from appliance.config_file import one_line
from appliance.web.addresses import CONNECT_SECONDS, Endpoint, takes_connections
from appliance.wiring import Services
from proxy.errors import CertificateRefused, ConfigurationError, HostUnreachable, LanfreeError

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds for one answer of a vCenter that is tried: somebody waits for it.
_ANSWER = 30.0


def certificate_of(where: Endpoint) -> Certificate:
    """What the server shows. Nothing but the handshake is sent. Raises ``HostUnreachable``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a person compares it
    for address in where.addresses:
        try:
            with (
                socket.create_connection((str(address), where.port), CONNECT_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=where.host) as secure,
            ):
                return _told(where, secure.getpeercert(binary_form=True) or b"")
        except (OSError, ValueError) as error:
            _LOG.info("%s:%s shows no certificate: %s", where.host, where.port, error)
    raise HostUnreachable(
        where.host, f"nobody answers with TLS at port {where.port}", hint="check name, port and firewall"
    )


def try_kvm(services: Services, host: config.Host, where: Endpoint | None) -> int:
    """How many machines it shows. Raises ``HostUnreachable``."""
    if where is not None and not takes_connections(where):
        raise HostUnreachable(
            host.name,
            f"nobody takes connections at port {where.port} of {where.host}",
            hint="check name, port and firewall, and that the service runs there",
        )
    return _quietly(
        lambda: operations.try_host(services, host),
        host.name,
        "somebody answers, but libvirt cannot be used there",
        "check that libvirtd runs there and takes this machine's SSH key (known host, authorized key) or certificate",
    )


def try_vcenter(services: Services, section: config.Vcenter, password: str) -> int:
    """How many machines it shows. Raises ``HostUnreachable``, ``CertificateRefused``."""
    with _in_memory(password) as trial:
        return _quietly(
            lambda: _machines(services, section, trial),
            section.name,
            "the server is the right one, but it cannot be used as this user",
            "check user and password, and that the role may see machines; the log has what was said",
        )


@contextmanager
def _in_memory(secret: str) -> Iterator[Path]:
    """A secret in a file that has no name and is on no disk: nothing is left of it, however this process ends. Raises as
    ``store_secret``."""
    data = one_line(secret)
    descriptor = os.memfd_create("trial")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _machines(services: Services, section: config.Vcenter, password_file: Path) -> int:
    from proxy.hypervisor.vsphere import VsphereSettings, VsphereSite  # noqa: PLC0415  # pyVmomi takes a second

    values = section.model_dump(exclude={"vddk_library", "password_file"})
    settings = VsphereSettings(**values, password_file=password_file, call_timeout=_ANSWER, restart_patience=0.0)
    site = VsphereSite(settings, state=services.shared.folder("vsphere"))
    try:
        return len(site.machines())
    finally:
        site.close()


def _quietly(work: Callable[[], T], name: str, why: str, hint: str) -> T:
    try:
        return work()
    except (CertificateRefused, ConfigurationError):
        raise  # in our own words, and thumbprints, which anybody may see
    except LanfreeError as error:
        _LOG.warning("the trial of %s failed: %s", name, error.message, extra={"event": "trial-failed"})
        raise HostUnreachable(name, why, hint=hint) from None


def _told(where: Endpoint, der: bytes) -> Certificate:
    found = x509.load_der_x509_certificate(der)
    digest = found.fingerprint(SHA256()).hex(":").upper()
    until: datetime = found.not_valid_after_utc
    return Certificate(
        host=where.host,
        port=where.port,
        thumbprint=digest,
        subject=found.subject.rfc4514_string()[:300],
        not_after=until,
    )
