"""Leases of vSphere's NFC service: a machine held for an export or an import, with an address for each of its disks.

"HttpNfcLease" of the vSphere Web Services SDK Programming Guide: a lease is asked for, becomes ready, lives as long as it is
told of progress (``leaseTimeout``, 300 s), and is completed or aborted. The addresses carry a ticket that is as good as a
password: they stay in here, and no error has one in its words.
"""

import base64
import binascii
import hashlib
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from proxy.errors import CertificateRefused, HostUnreachable, LanfreeError
from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused, refused
from proxy.hypervisor.vsphere.settings import HTTPS_PORT
from proxy.hypervisor.vsphere.tls import Pin

READY_TIMEOUT = 300.0
"""Seconds until a lease must be ready: for an import the host makes the disks first, and a busy one needs minutes."""

READY_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)

BEATS_A_TIMEOUT = 5
"""Signs of life in the time after which the host would end the lease: some may be lost, or late."""

LONGEST_BEAT = 60.0

_PLACE = re.compile(r"([A-Za-z0-9]+)Controller(\d+):(\d+)$")
_WORDS = (("NVME", "nvme"), ("AHCI", "sata"), ("SATA", "sata"), ("IDE", "ide"))


@dataclass(frozen=True, slots=True)
class Device:
    """One disk of a lease. ``key``: where it is plugged in (``scsi0:1``), empty when the lease does not say. ``path`` is a
    secret, and not shown."""

    key: str
    host: str
    port: int
    pin: Pin
    path: str = field(repr=False)


class Lease:
    """A lease that is ready. ``entity``: the machine; ``progress`` may be called from any thread, as often as one likes."""

    def __init__(self, vcenter: Vcenter, lease: Any, what: str) -> None:
        self._vcenter = vcenter
        self._lease = lease
        self._what = what
        self._percent = 0
        self._over = threading.Event()
        info = _ready(vcenter, lease, what)
        self.entity = info.entity
        self.lost = ""
        """Why the host ended it, as far as is known."""
        try:
            self.devices = [_device(vcenter, url, what) for url in info.deviceUrl or () if url.disk is not False]
        except BaseException:
            self.abort()
            raise
        beat = min(LONGEST_BEAT, (info.leaseTimeout or READY_TIMEOUT) / BEATS_A_TIMEOUT)
        self._keeper = threading.Thread(target=self._keep, args=(beat,), name=f"lease {what}", daemon=True)
        self._keeper.start()

    def device(self, key: str) -> Device:
        """The address of one disk. Raises ``Refused``."""
        return chosen(self.devices, key, self._what)

    def progress(self, share: float) -> None:
        """How far it is, 0 to 1: told with the next sign of life."""
        self._percent = min(99, max(self._percent, int(100 * share)))

    def complete(self) -> None:
        """It has done its work. Raises ``Refused``, ``HostUnreachable``."""
        self._stop()
        self._lease.HttpNfcLeaseComplete()

    def abort(self) -> None:
        """It was in vain: an import's machine goes away. Never raises: a lease that nobody keeps ends by itself."""
        self._stop()
        with suppress(LanfreeError):
            self._lease.HttpNfcLeaseAbort(None)

    def _stop(self) -> None:
        self._over.set()

    def _keep(self, beat: float) -> None:
        while not self._over.wait(beat):
            try:
                self._lease.HttpNfcLeaseProgress(self._percent)
            except HostUnreachable:
                continue  # vCenter restarts; the host may keep the lease meanwhile
            except LanfreeError as error:
                self.lost = error.message
                return


def chosen(devices: Sequence[Device], key: str, what: str) -> Device:
    """The disk that is plugged in there; never a guess between two. Raises ``Refused``."""
    found = [device for device in devices if device.key == key]
    if not found and len(devices) == 1 and not devices[0].key:
        return devices[0]  # the machine's only disk
    if len(found) != 1:
        told = ", ".join(device.key or "a disk without a place" for device in devices) or "no disk"
        raise Refused(what, f"its lease has {told}, not just one {key}", Refusal.NOT_SUPPORTED)
    return found[0]


def _ready(vcenter: Vcenter, lease: Any, what: str) -> Any:
    """The information of a lease once it is ready. Raises ``Refused``; then the lease is aborted."""
    deadline, pauses = time.monotonic() + READY_TIMEOUT, iter(READY_PAUSES)
    try:
        while True:
            found = collector.read_one(vcenter, lease, "state", "error")
            state = str(found.get("state"))
            if state == "ready":
                return collector.read_one(vcenter, lease, "info").values["info"]
            if state == "error":
                raise refused(what, found.get("error"))
            if state == "done" or time.monotonic() >= deadline:
                raise Refused(what, f"its lease is {state} after {READY_TIMEOUT:g} s", Refusal.TIMEOUT)
            time.sleep(next(pauses, READY_PAUSES[-1]))
    except BaseException:
        with suppress(LanfreeError):
            lease.HttpNfcLeaseAbort(None)
        raise


def _device(vcenter: Vcenter, url: Any, what: str) -> Device:
    """One of the lease's device addresses."""
    parts = urlsplit(str(url.url))
    # A host that is asked directly does not know by which name it is asked.
    host = vcenter.settings.host if parts.hostname in {None, "*"} else str(parts.hostname)
    try:
        named = parts.port
    except ValueError:
        named = 0
    port = named if named is not None else vcenter.settings.port if parts.hostname in {None, "*"} else HTTPS_PORT
    if parts.scheme != "https" or not port:
        raise Refused(what, f"its lease names an address at {host} that is none of HTTPS", Refusal.NOT_SUPPORTED)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    key = _key(str(url.importKey or "")) or _key(str(url.key or ""))
    pin = pin_of(vcenter, str(url.sslCertificate or ""), str(url.sslThumbprint or ""), host, port)
    return Device(key, host, port, pin, path)


def _key(text: str) -> str:
    """``/vm-12/ParaVirtualSCSIController0:1`` -> ``scsi0:1``."""
    found = _PLACE.search(text)
    if found is None:
        return ""
    word = next((ours for theirs, ours in _WORDS if theirs in found[1].upper()), "scsi")
    return f"{word}{found[2]}:{found[3]}"


def pin_of(vcenter: Vcenter, certificate: str, thumbprint: str, host: str, port: int) -> Pin:
    """What the host must show: the certificate (PEM) that vCenter itself names, or its thumbprint, which the session with
    vCenter vouches for. Raises ``CertificateRefused``."""
    if certificate:
        body = "".join(line for line in certificate.splitlines() if not line.startswith("-----"))
        with suppress(binascii.Error, ValueError):
            return Pin(hashlib.sha256(base64.b64decode(body, validate=True)).hexdigest())
    digest = thumbprint.replace(":", "").strip().lower()
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
        return Pin(digest)
    if (host, port) == (vcenter.settings.host, vcenter.settings.port):
        return vcenter.pin
    if vcenter.pin.ca_bundle is not None:
        return Pin("", vcenter.pin.ca_bundle)
    raise CertificateRefused(f"{host}:{port}", "none: vCenter names no certificate for this host", "not asked")
