"""Pull mode: the hypervisor itself serves the frozen disks over NBD (``backup-begin``). The way without a SAN.

The guest's writes go on to its own disk; before a block is overwritten its old content is saved in a scratch file, so
the export stays at one moment. The incremental part is a bitmap that the export shows as a meta context.
https://libvirt.org/formatbackup.html, https://libvirt.org/kbase/live_full_disk_backup.html
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from proxy.errors import SnapshotFailed
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.inventory import parse
from proxy.hypervisor.kvm.ownership import overlay_path
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import ChangeId, NbdAddress, RunId, SnapshotRequest

# Ports for NBD servers of pull backups, one a machine. The first is the port that IANA gave NBD.
FIRST_PORT = 10809
PORTS = 64

# struct sockaddr_un: 108 bytes with the terminating zero.
SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True, slots=True)
class NbdServer:
    """Where the host's NBD server listens: a Unix ``socket``, or ``address`` and ``port`` with TLS."""

    socket: str | None = None
    address: str = ""
    port: int = 0
    tls_directory: str | None = None

    def export(self, key: str, *, incremental: bool) -> NbdAddress:
        """The export of one disk. Its name is the disk's key, its bitmap's ``backup-<key>``."""
        bitmap = f"qemu:dirty-bitmap:backup-{key}" if incremental else None
        if self.socket is not None:
            return NbdAddress(f"nbd+unix:///{quote(key)}?socket={quote(self.socket)}", bitmap)
        name = f"[{self.address}]" if ":" in self.address else self.address
        return NbdAddress(f"nbds://{name}:{self.port}/{quote(key)}", bitmap, self.tls_directory)


def server_of(host: Host, run: RunId, machine: str) -> NbdServer:
    """Where the run's exports shall be. Raises ``SnapshotFailed`` when it would have to be a network without TLS."""
    settings = host.settings
    address = settings.nbd_address or settings.remote
    if address is None:
        return NbdServer(socket=_socket_path(settings, run, machine))
    if settings.tls_directory is None:
        raise SnapshotFailed(
            machine,
            f"host {host.name} is remote and has no tls_directory, and disks are not sent over a network in the clear",
            hint="set tls_directory of the host, and backup_tls_x509_cert_dir in its qemu.conf",
        )
    return NbdServer(address=address, port=_free_port(host), tls_directory=settings.tls_directory)


@dataclass(frozen=True, slots=True)
class Job:
    """A pull backup to be begun; ``every``: all disks of the machine by target name."""

    host: KvmHost
    server: NbdServer
    request: SnapshotRequest
    every: Sequence[str]

    def xml(self, since: Mapping[str, ChangeId]) -> str:
        """``<domainbackup>``: the disks in ``since`` with a bitmap of what changed. Scratch files carry our name."""
        if self.server.socket is not None:
            listen = f"<server transport='unix' socket={quoteattr(self.server.socket)}/>"
        else:
            address = f"name={quoteattr(self.server.address)} port='{self.server.port}'"
            listen = f"<server transport='tcp' tls='yes' {address}/>"
        disks = "".join(self._disk(key, since) for key in self.every)
        return f"<domainbackup mode='pull'>{listen}<disks>{disks}</disks></domainbackup>"

    def _disk(self, key: str, since: Mapping[str, ChangeId]) -> str:
        if key not in self.request.disks:
            return f"<disk name={quoteattr(key)} backup='no'/>"
        mode = "backupmode='full'"
        if key in since:
            mode = f"backupmode='incremental' incremental={quoteattr(since[key])} exportbitmap={quoteattr('backup-' + key)}"
        scratch = quoteattr(overlay_path(self.host, self.request.run, key))
        return (
            f"<disk name={quoteattr(key)} backup='yes' type='file' exportname={quoteattr(key)} {mode}>"
            f"<driver type='qcow2'/><scratch file={scratch}/></disk>"
        )


def running_job(place: Domain) -> tuple[RunId | None, set[str]] | None:
    """The backup job that runs now: whose it is (``None`` = not ours) and the disks it freezes. ``None`` without a job."""
    text = place.backup_xml()
    if text is None:
        return None
    runs: set[RunId | None] = set()
    keys = set()
    for disk in parse(text).findall("disks/disk"):
        scratch = disk.find("scratch")
        if disk.get("backup") == "yes" and scratch is not None:
            runs.add(place.host.owned.run_of(scratch.get("file", "")))
            keys.add(disk.get("name", ""))
    return (runs.pop() if len(runs) == 1 else None), keys


def _socket_path(settings: KvmHost, run: RunId, machine: str) -> str:
    short = hashlib.sha256(run.encode()).hexdigest()[:12]
    path = f"{settings.overlay_directory.rstrip('/')}/lanfree-{short}.sock"
    if len(path) > SOCKET_PATH_LIMIT:
        raise SnapshotFailed(machine, f"{path} is too long for a socket", hint="use a shorter overlay_directory")
    return path


def _free_port(host: Host) -> int:
    """A port that no pull backup of this host uses. Another program may: then the job is refused, and said so."""
    used = set()
    for place in host.domains():
        text = place.backup_xml()
        server = parse(text).find("server") if text else None
        if server is not None and server.get("port", "").isdecimal():
            used.add(int(server.get("port", "0")))
    free = (port for port in range(FIRST_PORT, FIRST_PORT + PORTS) if port not in used)
    port = next(free, None)
    if port is None:
        raise SnapshotFailed(host.name, f"all of {PORTS} NBD ports are in use")
    return port
