"""Exports: the disks of a snapshot, or of a machine that is off, as streams from their host.

vSphere gives one lease a machine at a time, with all of its disks; so disks of one machine that are read at the same time share
it, and it is completed when the last of them is closed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from proxy.errors import LanfreeError
from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import virtual_disks
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.leases import Device, Lease
from proxy.hypervisor.vsphere.nfc_http import Download
from proxy.model import VmdkAddress


class ExportedDisk:
    """One disk of a lease. ``host`` sends it."""

    def __init__(self, lease: "_Shared", device: Device, what: str) -> None:
        self.host = device.host
        self._lease = lease
        self._device = device
        self._what = what

    def open(self) -> Download:
        """The stream, from its beginning, each time. Raises ``Refused``, ``CertificateRefused``, ``OSError``."""
        return Download(self._device, self._what)

    def progress(self, share: float) -> None:
        """How far it is, 0 to 1."""
        self._lease.progress(self._device.key, share)


class Exports:
    """All exports of one vCenter. Any thread."""

    def __init__(self, vcenter: Vcenter) -> None:
        self._vcenter = vcenter
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Shared] = {}

    @contextmanager
    def export(self, address: VmdkAddress) -> Iterator[ExportedDisk]:
        """One disk for reading, while inside. Raises ``Refused``, ``CertificateRefused``, ``HostUnreachable``."""
        what = f"export of [{address.datastore}] {address.path}"
        shared = self._shared(address)
        try:
            with shared.lock:
                lease = shared.lease = shared.lease or self._begin(address, what)
                key = self._key(address, lease, what)
            yield ExportedDisk(shared, lease.device(key), what)
        finally:
            self._leave(address, shared)

    def _shared(self, address: VmdkAddress) -> "_Shared":
        with self._lock:
            shared = self._running.setdefault((address.machine, address.snapshot), _Shared())
            shared.users += 1
            return shared

    def _leave(self, address: VmdkAddress, shared: "_Shared") -> None:
        # The lock is kept until the lease is over: who asks meanwhile would be refused a second one.
        with shared.lock:
            with self._lock:
                shared.users -= 1
                last = not shared.users
            if last and shared.lease is not None:
                with suppress(LanfreeError):  # all that was wanted was read; a lease that nobody keeps ends by itself
                    shared.lease.complete()
                shared.lease = None
            with self._lock:
                if not shared.users:
                    self._running.pop((address.machine, address.snapshot), None)

    def _begin(self, address: VmdkAddress, what: str) -> Lease:
        if address.snapshot:
            return Lease(self._vcenter, self._vcenter.object(vim.vm.Snapshot, address.snapshot).ExportSnapshot(), what)
        return Lease(self._vcenter, self._vcenter.object(vim.VirtualMachine, address.machine).ExportVm(), what)

    def _key(self, address: VmdkAddress, lease: Lease, what: str) -> str:
        """Where the disk is plugged in, by which the lease names it."""
        kind, named = (vim.vm.Snapshot, address.snapshot) if address.snapshot else (vim.VirtualMachine, address.machine)
        found = collector.read_one(self._vcenter, self._vcenter.object(kind, named), "config.hardware.device")
        disks = virtual_disks(found.get("config.hardware.device") or ())
        key = next((key for key, device in disks.items() if device.key == address.device), "")
        if not key:
            raise Refused(what, f"{named} has no disk with the device key {address.device}", Refusal.GONE)
        return key


@dataclass(slots=True)
class _Shared:
    """A lease with its users. ``lock``: held by who asks for it, so that only one does."""

    users: int = 0
    lease: Lease | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    shares: dict[str, float] = field(default_factory=dict)

    def progress(self, key: str, share: float) -> None:
        """How far one disk is; the lease is told the mean."""
        self.shares[key] = share
        lease = self.lease
        if lease is not None:
            lease.progress(sum(self.shares.values()) / max(1, len(lease.devices)))
