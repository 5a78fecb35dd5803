"""The composition root: the only place that names adapters. Everything is made when it is first used.

``Services`` is what commands and workflows get. It holds no logic: what it does beyond making parts is one call each.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import storage
from appliance.config import Host, Settings, Target
from appliance.kvm import kvm_works
from mounter.export import ImageToExport
from mounter.remote import libguestfs
from mounter.session import MountSession
from proxy.backup import BackupPorts
from proxy.clock import SystemClock
from proxy.closing import Closeable
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.interlock import Interlock
from proxy.model import RestorePoint
from proxy.ports import ProgressSink, Transport
from proxy.repository import Repository
from proxy.restore import RestorePorts
from proxy.transport.lan import LanTransport
from proxy.transport.raw import RawTransport, SharedFiles
from proxy.transport.san import Access, SanFabric, SanTarget, SanTransport
from proxy.transport.target import SiteTargets

if TYPE_CHECKING:
    from catalog.unit_of_work import Catalog


class Services(Closeable):
    """The parts of one appliance. ``cancelled``: set when the process was asked to end. Close it: it holds connections."""

    def __init__(self, settings: Settings, cancelled: threading.Event | None = None) -> None:
        self.settings = settings
        self.cancelled = cancelled or threading.Event()
        self.progress: ProgressSink | None = None
        self.clock = SystemClock()
        settings.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @cached_property
    def interlock(self) -> Interlock:
        return Interlock(self.settings.state.directory / "locks")

    @cached_property
    def repository(self) -> Repository:
        """Raises ``RepositoryUnavailable``."""
        return storage.opened(self.settings.repository, self._cache, self.clock)

    @cached_property
    def hypervisor(self) -> KvmSite:
        return self.site(self.settings.host)

    @cached_property
    def fabric(self) -> SanFabric:
        return SanFabric([san_target(target) for target in self.settings.san.target])

    @cached_property
    def transports(self) -> tuple[Transport, ...]:
        """In the configured order of preference."""
        files = SharedFiles(self.settings.raw.shared_directories)
        made: Mapping[str, Transport] = {
            "san": SanTransport(self.fabric, files),
            "raw": RawTransport(files),
            "lan": LanTransport(),
        }
        return tuple(made[mode] for mode in self.settings.backup.transports)

    @cached_property
    def catalog(self) -> "Catalog":
        # Imported when it is needed: SQLAlchemy and Alembic take longer than most commands that do without.
        from catalog.unit_of_work import Catalog  # noqa: PLC0415

        return Catalog(f"sqlite:///{self.settings.state.directory / 'catalog.db'}")

    @property
    def workflow_url(self) -> str:
        return f"sqlite:///{self.settings.state.directory / 'workflows.db'}"

    @property
    def _cache(self) -> Path:
        return self.settings.state.directory / "cache"

    def site(self, hosts: tuple[Host, ...]) -> KvmSite:
        """These hosts as one site; connects when it is first asked something."""
        return KvmSite(
            [_kvm_host(host) for host in hosts],
            state_directory=self.settings.state.directory / "kvm",
            readers_gone=self.interlock.readers_gone,
            rolling_overlay=self.settings.kvm.rolling_overlay,
        )

    def make_repository(self) -> bool:
        """Make the repository unless there is one; whether it was made."""
        return storage.made(self.settings.repository, self._cache, self.clock)

    def backup_ports(self) -> BackupPorts:
        return BackupPorts(
            hypervisor=self.hypervisor,
            transports=self.transports,
            repository=self.repository,
            interlock=self.interlock,
            progress=self.progress,
            cancelled=self.cancelled.is_set,
            workers=self.settings.backup.workers,
            segment=self.settings.backup.segment,
            audit_sample=self.settings.backup.audit_sample,
        )

    def restore_ports(self) -> RestorePorts:
        return RestorePorts(
            hypervisor=self.hypervisor,
            repository=self.repository,
            targets=SiteTargets(self.fabric, SharedFiles(self.settings.raw.shared_directories)),
            interlock=self.interlock,
            progress=self.progress,
            cancelled=self.cancelled.is_set,
        )

    @contextmanager
    def mount(self, point: RestorePoint) -> Iterator[MountSession]:
        """A restore point, opened for its files; nothing of it is collected meanwhile. Raises ``MountFailed``."""
        argument = {
            "repository": self.settings.repository.model_dump(mode="json", exclude_unset=True),
            "point": point.id,
        }
        opener = "appliance.opener:open_image"
        images = [ImageToExport(image.key, opener, {**argument, "key": image.key}) for image in point.images]
        works, _ = kvm_works()
        with (
            self.repository.reading(f"restore point {point.id}"),
            MountSession(images, libguestfs(accelerate=works), clock=self.clock) as session,
        ):
            yield session

    def close(self) -> None:
        """Let go of whatever was made."""
        for name in ("hypervisor", "repository", "catalog"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()


def _kvm_host(host: Host) -> KvmHost:
    return KvmHost(
        name=host.name,
        uri=host.uri,
        overlay_directory=host.overlay_directory,
        overlay_reserve=host.overlay_reserve,
        tls_directory=str(host.tls_directory) if host.tls_directory else None,
        nbd_address=host.nbd_address,
    )


def san_target(target: Target) -> SanTarget:
    """A configured target for the fabric."""
    return SanTarget(
        iqn=target.iqn,
        portals=target.portals,
        initiator=target.initiator,
        chap_user=target.chap_user or None,
        chap_secret_file=target.chap_secret_file,
        presents=target.presents,
        access=Access(target.access),
    )
