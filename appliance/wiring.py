"""The composition root: the only place that names adapters. Everything is made, and imported, when it is first used: most
commands need little of it, and libraries take longer to load than such commands take.

``Services`` is what commands and workflows get. It holds no logic: what it does beyond making parts is one call each.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from appliance import databases, release, storage
from appliance.config import Host, Settings, Target
from appliance.kvm import kvm_works
from appliance.reconfiguring import Former, part
from appliance.serving.closures import Closures
from appliance.serving.controls import Controls
from proxy.clock import SystemClock
from proxy.closing import Closeable
from proxy.errors import MountFailed, RestoreRefused
from proxy.interlock import Interlock
from proxy.model import Location, MachineConfiguration, MachineId, RestorePoint, RunId, VmdkAddress
from proxy.ports import Hypervisor, NewMachine, RestoreTargets, StateStore, Transport
from proxy.repository import Repository
from proxy.state_directory import StateDirectory

if TYPE_CHECKING:
    from appliance.reach import Reach
    from appliance.serving.liveness import Liveness
    from appliance.telling.telling import Telling
    from appliance.unlock import UnlockStore
    from appliance.vsphere import Vcenters
    from catalog.access.store import AccessStore
    from catalog.jobs.limits import Limits
    from catalog.jobs.store import JobStore
    from catalog.jobs.values import ProxyFacts
    from catalog.unit_of_work import Catalog
    from mounter.export import ImageToExport
    from mounter.keys import Key
    from mounter.session import MountSession, OpensFilesystem
    from proxy.backup import BackupPorts
    from proxy.hypervisor.kvm import KvmHost, KvmSite
    from proxy.hypervisor.several import Sites
    from proxy.restore import RestorePorts, RestoreRequest
    from proxy.transport.raw import SharedFiles
    from proxy.transport.san import SanFabric, SanTarget


class Services(Closeable):
    """The parts of one appliance. ``cancelled``: set when the process was asked to end. Close it: it holds connections."""

    def __init__(self, settings: Settings, cancelled: threading.Event | None = None) -> None:
        self.settings = settings
        self.cancelled = cancelled or threading.Event()
        self.controls = Controls(self.cancelled.is_set)
        self.closures = Closures()
        self.slots = 0  # tasks at once; none but a process that serves takes any
        self.clock = SystemClock()
        self.started_at = self.clock.now()
        self._former = Former()
        self.making = threading.RLock()
        self.paths: frozenset[str] = frozenset()  # fabrics that it reaches, as far as it has looked
        settings.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @cached_property
    def interlock(self) -> Interlock:
        return Interlock(self.settings.state.directory / "locks")

    @cached_property
    def repository(self) -> Repository:
        """Raises ``RepositoryUnavailable``."""
        return storage.opened(self.settings.repository, self._cache, self.clock)

    @part
    def hypervisor(self) -> "Sites":
        """All that is configured, as one. Raises ``ConfigurationError`` where nothing is."""
        return self._sites()

    @part
    def vcenters(self) -> "Vcenters | None":
        """``None`` where none is configured."""
        if not self.settings.vcenter:
            return None
        from appliance.vsphere import Vcenters  # noqa: PLC0415

        return Vcenters(
            self.settings.vcenter,
            state=self.shared.folder("vsphere"),
            directory=self.settings.state.directory,
            fabric=self.fabric,
            files=self._files,
            readers_gone=self.interlock.readers_gone,
        )

    @part
    def _kvm(self) -> "KvmSite":
        return self.site(self.settings.host)

    def _sites(self, point: RestorePoint | None = None) -> "Sites":
        """``point``: the one that is restored; it says to which vCenter."""
        from proxy.hypervisor.several import Sites  # noqa: PLC0415

        vcenters = self.vcenters
        sites: list[Hypervisor] = [self._kvm] if self.settings.host else []
        sites += vcenters.sites.values() if vcenters is not None else ()

        def definer(configuration: MachineConfiguration, _new: NewMachine) -> Hypervisor | None:
            from proxy.hypervisor.kvm.define import KIND as LIBVIRT  # noqa: PLC0415

            if configuration.kind == LIBVIRT:
                return self._kvm if self.settings.host else None
            return vcenters.of(point) if vcenters is not None and point is not None else None

        return Sites(sites, definer)

    @part
    def fabric(self) -> "SanFabric":
        from proxy.transport.san import SanFabric  # noqa: PLC0415

        return SanFabric([san_target(target) for target in self.settings.san.target])

    @part
    def reach(self) -> "Reach":
        """Which fabrics this proxy reaches."""
        from appliance.reach import reach_of  # noqa: PLC0415

        return reach_of(self)

    @part
    def transports(self) -> tuple[Transport, ...]:
        """In the configured order of preference."""
        from proxy.transport.by_place import ByPlace  # noqa: PLC0415
        from proxy.transport.lan import LanTransport  # noqa: PLC0415
        from proxy.transport.raw import RawTransport  # noqa: PLC0415
        from proxy.transport.san import SanTransport  # noqa: PLC0415

        made: dict[str, Transport] = {
            "san": SanTransport(self.fabric, self._files),
            "raw": RawTransport(self._files),
            "lan": LanTransport(),
        }
        vcenters = self.vcenters
        if vcenters is not None:
            made["san"] = ByPlace("san", partial(_first, vcenters.san, made["san"]))
            made["lan"] = ByPlace("lan", partial(_first, vcenters.lan, made["lan"]))
        return tuple(made[mode] for mode in self.settings.backup.transports)

    @part
    def _files(self) -> "SharedFiles":
        from proxy.transport.raw import SharedFiles  # noqa: PLC0415

        return SharedFiles(self.settings.raw.shared_directories)

    @cached_property
    def catalog(self) -> "Catalog":
        from catalog.unit_of_work import Catalog  # noqa: PLC0415

        return Catalog(self.catalog_url, databases.password(self.settings))

    @cached_property
    def jobs(self) -> "JobStore":
        from catalog.jobs.store import JobStore  # noqa: PLC0415

        return JobStore(self.catalog_url, databases.password(self.settings))

    @cached_property
    def access(self) -> "AccessStore":
        """Users, tokens, sessions."""
        from catalog.access.store import AccessStore  # noqa: PLC0415

        return AccessStore(self.catalog_url, databases.password(self.settings))

    def closed(self) -> frozenset[str]:
        """Keys under which nothing may begin now: what is broken, and what would be too slow."""
        watch = self.controls.watch
        return self.closures.closed() | (watch.closed() if watch is not None else frozenset())

    @part
    def telling(self) -> "Telling":
        """Messages to people."""
        from appliance.telling.telling import Telling  # noqa: PLC0415

        def note(run: str, text: str) -> None:
            with self.jobs.transaction() as unit:
                unit.runs.note(run, text)

        settings = self.settings
        return Telling(settings.notify, settings.reports, settings.state.directory, self.clock, note)

    @property
    def catalog_url(self) -> str:
        """Where catalog, access log and jobs are; without a password."""
        return databases.catalog_url(self.settings)

    @property
    def liveness(self) -> "Liveness":
        """How processes with an engine know of each other. A new one each time."""
        from appliance.serving.heartbeats import Heartbeats, Times  # noqa: PLC0415
        from appliance.serving.liveness import FileLocks  # noqa: PLC0415

        if self.catalog_url.startswith("sqlite"):
            return FileLocks(self.settings.state.directory / "executors")
        proxy = self.settings.proxy
        return Heartbeats(self.jobs, self.proxy_facts, Times(proxy.beat, proxy.fence, proxy.takeover))

    def proxy_facts(self, name: str) -> "ProxyFacts":
        """What this process tells the others of itself."""
        from catalog.jobs.values import ProxyFacts  # noqa: PLC0415

        return ProxyFacts(
            name=name,
            machine=self.settings.proxy.name or gethostname(),
            started_at=self.started_at,
            seen_at=self.clock.now(),
            paths=self.paths,
            version=release.version(),
            slots=self.slots,
            closed=self.closed(),
        )

    @property
    def limits(self) -> "Limits":
        """How many tasks may hold a key at once."""
        from appliance.jobs.limiting import limited  # noqa: PLC0415

        return limited(self.settings.limits)

    @property
    def workflow_url(self) -> str:
        return databases.workflow_url(self.settings)

    @cached_property
    def shared(self) -> StateStore:
        """What the drivers must know again after a crash, the same for all proxies of this site."""
        if self.settings.database.url is not None:
            return self.jobs.shared
        return StateDirectory(self.settings.state.directory)

    @property
    def _cache(self) -> Path:
        return self.settings.state.directory / "cache"

    def site(self, hosts: tuple[Host, ...]) -> "KvmSite":
        """These hosts as one site; connects when it is first asked something."""
        from proxy.hypervisor.kvm import KvmSite  # noqa: PLC0415

        return KvmSite(
            [_kvm_host(host) for host in hosts],
            state=self.shared.folder("kvm"),
            readers_gone=self.interlock.readers_gone,
            rolling_overlay=self.settings.kvm.rolling_overlay,
            shared=self.settings.raw.shared_directories,
        )

    def make_repository(self) -> bool:
        """Make the repository unless there is one; whether it was made."""
        return storage.made(self.settings.repository, self._cache, self.clock)

    def backup_ports(self, machine: MachineId, run: RunId, modes: Sequence[str] | None = None) -> "BackupPorts":
        """What a backup of this machine needs. ``modes``: transports in a job's own order of preference, if it has one.
        Raises ``MachineNotFound``, ``HostUnreachable``."""
        from proxy.backup import BackupPorts  # noqa: PLC0415

        control = self.controls.of(run)
        return BackupPorts(
            hypervisor=self.hypervisor.of(machine),
            transports=self.transports if modes is None else self._in_order(modes),
            repository=self.repository,
            interlock=self.interlock,
            progress=control.note,
            cancelled=control.cancelled,
            workers=self.settings.backup.workers,
            segment=self.settings.backup.segment,
            audit_sample=self.settings.backup.audit_sample,
            tracking_required=self.settings.backup.tracking_lost == "fail",
            pace=self.controls.pace,
        )

    def _in_order(self, modes: Sequence[str]) -> tuple[Transport, ...]:
        """Of the configured transports those that a job names; what the file leaves out stays out."""
        known = {transport.mode: transport for transport in self.transports}
        return tuple(known[mode] for mode in modes if mode in known)

    @contextmanager
    def restoring(self, request: "RestoreRequest", point: RestorePoint) -> "Iterator[RestorePorts]":
        """What a restore needs. An import that was begun and not completed is given up at the end."""
        from proxy.transport.target import SiteTargets  # noqa: PLC0415

        if request.attach is not None and self.vcenters is None:
            raise RestoreRefused(request.machine.name, "only vSphere machines can be given a disk")
        imported = self.vcenters.targets(request, point) if self.vcenters is not None else None
        with imported or nullcontext():
            yield self._restore_ports(imported or SiteTargets(self.fabric, self._files), point, request.run)

    def attach(self, request: "RestoreRequest", point: RestorePoint, targets: RestoreTargets) -> str:
        """Give the restored disk to the machine that the request names; the disk's key there."""
        if self.vcenters is None:
            raise RestoreRefused(request.machine.name, "only vSphere machines can be given a disk")
        return self.vcenters.attach(request, point, targets)

    def _restore_ports(self, targets: RestoreTargets, point: RestorePoint, run: RunId) -> "RestorePorts":
        from proxy.restore import RestorePorts  # noqa: PLC0415

        control = self.controls.of(run)
        return RestorePorts(
            hypervisor=self._sites(point),
            repository=self.repository,
            targets=targets,
            interlock=self.interlock,
            progress=control.note,
            cancelled=control.cancelled,
        )

    @contextmanager
    def mount(
        self, point: RestorePoint, *, keys: "Sequence[Key]" = (), lifetime: timedelta | None = None, direct: bool = True
    ) -> "Iterator[MountSession]":
        """A restore point, opened for its files; nothing of it is collected meanwhile. ``keys``: for encrypted volumes,
        beside those that are kept for the machine; ``lifetime``: as long as people browse, if not said; ``direct``: without
        an appliance where that can be and the configuration allows it. Raises ``MountFailed``."""
        from mounter.session import LIFETIME, MountSession  # noqa: PLC0415

        if point.of_appliance:
            raise MountFailed(
                point.id, "it holds the appliance itself, no machine", hint="see 'lanfree bootstrap --help'"
            )
        opener = self._opener([*keys, *self.unlock.keys(point.machine)], direct=direct)
        with (
            self.repository.reading(f"restore point {point.id}"),
            MountSession(self.images(point), opener, clock=self.clock, lifetime=lifetime or LIFETIME) as session,
        ):
            yield session

    @cached_property
    def unlock(self) -> "UnlockStore":
        """Keys of encrypted volumes that are kept for machines."""
        from appliance.unlock import UnlockStore  # noqa: PLC0415

        repository = self.repository
        return UnlockStore(self.shared.folder("unlock"), repository.sealer, sealed=repository.settings.sealed)

    def _opener(self, keys: "Sequence[Key]", *, direct: bool) -> "OpensFilesystem":
        from mounter.choose import best  # noqa: PLC0415

        files = self.settings.files
        works, _ = kvm_works()
        return best(
            accelerate=works,
            fast=direct and files.reader == "auto",
            memory_mib=files.appliance_memory,
            keys=keys,
        )

    def images(self, point: RestorePoint) -> "list[ImageToExport]":
        """The disks of a restore point, for processes that serve them."""
        from mounter.export import ImageToExport  # noqa: PLC0415

        argument = {
            "repository": self.settings.repository.model_dump(mode="json", exclude_unset=True),
            "point": point.id,
        }
        opener = "appliance.opener:open_image"
        return [ImageToExport(image.key, opener, {**argument, "key": image.key}) for image in point.images]

    def reconfigure(self, settings: Settings) -> None:
        """From now on these settings count for whatever is asked anew, but for state, databases and repositories. Not while
        runs of this process are under way."""
        with self.making:
            before, self.settings = self.settings, settings
            self._former.replace(self.__dict__, before, settings)

    def close(self) -> None:
        """Let go of whatever was made."""
        self._former.close()
        for name in ("_kvm", "vcenters", "repository", "catalog", "jobs", "access"):
            if self.__dict__.get(name) is not None:
                self.__dict__.pop(name).close()


def _first(vcenters: Callable[[Location], Transport | None], other: Transport, place: Location) -> Transport | None:
    """A vCenter's transport for its disks, the other for all that is no vCenter's."""
    return vcenters(place) if isinstance(place, VmdkAddress) else other


def _kvm_host(host: Host) -> "KvmHost":
    from proxy.hypervisor.kvm import KvmHost  # noqa: PLC0415

    return KvmHost(**host.model_dump() | {"tls_directory": host.tls_directory and str(host.tls_directory)})


def san_target(target: Target) -> "SanTarget":
    """A configured target for the fabric."""
    from proxy.transport.san import Access, SanTarget  # noqa: PLC0415

    facts = target.model_dump(exclude={"chap_user", "access"})
    return SanTarget(**facts, chap_user=target.chap_user or None, access=Access(target.access))
