"""The only door to libvirt: hosts, domains and volumes as typed objects, every error one of ours.

A ``Domain`` holds no libvirt object, only its UUID, so that it survives a reconnect. A call whose connection turns out
dead is made once more if it only reads; a call that changes something is not, because nobody knows how far it came.
"""

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from proxy.errors import HostUnreachable
from proxy.hypervisor.kvm.answers import CODES, DomainState, Refusal, Refused, refused
from proxy.hypervisor.kvm.connection_pool import ConnectionPool
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import MachineId, PowerState

T = TypeVar("T")

# A host that opens no connection in this time is called silent. ssh and TLS need a few round trips; a host that is up
# but under load was seen to need 9 s for its first answer (it probes its emulators).
OPEN_TIMEOUT = 20.0

# A host that says nothing to a goodbye is not waited for: keepalive, or the end of the proxy, hangs up then.
CLOSE_TIMEOUT = 1.0

# Keepalive: a dead host is noticed after about INTERVAL * COUNT seconds; shorter would take a paused host for dead.
KEEPALIVE_INTERVAL = 5
KEEPALIVE_COUNT = 4

# Milliseconds after which a command to an emulator is taken to hang. Commands take a few; on a busy host a fraction of a
# second. One that hangs keeps its lock until the array answers, and each further question would wait 30 s for the lock.
STUCK_AFTER = 1000

# libvirt's "wait for the agent without limit", which is its own default and what we put back.
AGENT_BLOCK = -2


class Host:
    """One host, connected to when that is first needed. Calls may come from any thread; none waits for another.

    ``owned``: what counts as ours in its chains; by default only what lies in its own overlay directory.
    """

    def __init__(self, settings: KvmHost, owned: Ownership | None = None) -> None:
        self.settings = settings
        self.name = settings.name
        self.owned = owned or Ownership.of([settings])
        self._pool: ConnectionPool[Any] = ConnectionPool(lambda: _open(settings), _alive, _hang_up)
        self._watch: _Watch | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Hang up; the next call connects again."""
        self._pool.close()
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()

    def starts(self, machine: MachineId) -> str:
        """A word that changes when the machine is started, and when starts may have been missed (new connection)."""
        with self._lock:
            if self._watch is not None and not _alive(self._watch.connection):
                self._watch.end()
                self._watch = None
            if self._watch is None:
                self._watch = _Watch(self.settings)
            return self._watch.starts(machine)

    def domains(self) -> list["Domain"]:
        """Every domain, running or only defined."""
        found = self.call("list machines", lambda c: [d.UUIDString() for d in c.listAllDomains(0)])
        return [Domain(self, machine) for machine in found]

    def domain(self, machine: MachineId) -> "Domain | None":
        """The domain with that UUID, if this host knows it."""
        try:
            self.call("look up machine", lambda c: c.lookupByUUIDString(machine).isActive())
        except Refused as error:
            if error.refusal is Refusal.NO_DOMAIN:
                return None
            raise
        return Domain(self, machine)

    def has_name(self, name: str) -> MachineId | None:
        """UUID of the domain with that name."""
        try:
            return str(self.call("look up name", lambda c: c.lookupByName(name).UUIDString()))
        except Refused as error:
            if error.refusal is Refusal.NO_DOMAIN:
                return None
            raise

    def define(self, xml: str) -> "Domain":
        """Define, not start."""
        machine = self.call("define machine", lambda c: c.defineXML(xml).UUIDString(), reads=False)
        return Domain(self, machine)

    def create_paused(self, xml: str) -> "Domain":
        """Start with stopped processors; the domain ends when this connection does, whatever becomes of the proxy."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        machine = self.call("start paused", lambda c: c.createXML(xml, flags).UUIDString(), reads=False)
        return Domain(self, machine)

    def call(self, what: str, work: Callable[[Any], T], *, reads: bool = True) -> T:
        """Run ``work`` with the connection. Raises ``Refused`` or ``HostUnreachable``."""
        with self._pool.lend() as connection:
            try:
                return work(connection)
            except libvirt.libvirtError as error:
                if _alive(connection):
                    raise _refused(what, error) from None
                if not reads:
                    raise HostUnreachable(self.name, f"the connection broke during '{what}'") from None
        with self._pool.lend(fresh=True) as connection:  # those that are idle may have broken unnoticed, too
            try:
                return work(connection)
            except libvirt.libvirtError as error:
                raise _refused(what, error) from None


class _Watch:
    """Counts starts, so that a machine that was off can be proven to have stayed off. Its connection carries no calls."""

    def __init__(self, settings: KvmHost) -> None:
        self.connection = _open(settings)
        self._generation = uuid.uuid4().hex[:12]
        self._starts: Counter[MachineId] = Counter()
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        try:
            self._number = self.connection.domainEventRegisterAny(None, kind, self._seen, None)
        except libvirt.libvirtError as error:
            raise HostUnreachable(settings.name, f"its machines cannot be watched: {error}") from None

    def starts(self, machine: MachineId) -> str:
        return f"{self._generation}:{self._starts[machine]}"

    def end(self) -> None:
        _hang_up(self.connection, self._number)

    def _seen(self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: Any) -> None:
        if event in (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED):
            self._starts[domain.UUIDString()] += 1


class Domain:
    """One machine on one host. Every method is one libvirt call."""

    def __init__(self, host: Host, machine: MachineId) -> None:
        self.host = host
        self.machine = machine

    def xml(self, *, inactive: bool = False, secrets: bool = False) -> str:
        """Live definition (what runs now), or the one for the next start. ``secrets``: only to define it again."""
        flags = (libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0) | (libvirt.VIR_DOMAIN_XML_SECURE if secrets else 0)
        return str(self._call("read definition", lambda d: d.XMLDesc(flags)))

    def state(self) -> DomainState:
        """Power state with the facts that libvirt knows about it."""

        def work(domain: Any) -> DomainState:
            state, reason = domain.state()
            if not domain.isActive():  # a crashed machine may be kept with its emulator: that one is paused
                if domain.hasManagedSaveImage():
                    return DomainState(PowerState.SUSPENDED)
                clean = state == libvirt.VIR_DOMAIN_SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN
                return DomainState(PowerState.OFF, clean=clean)
            if state in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_CRASHED):
                coming = reason in (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
                return DomainState(
                    PowerState.PAUSED, incoming=coming, stuck=reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR
                )
            return DomainState(PowerState.RUNNING)

        return self._call("read state", work)

    def persistent(self) -> bool:
        """Whether it stays defined when it is off."""
        return bool(self._call("read persistence", lambda d: d.isPersistent()))

    def disk_size(self, key: str) -> int:
        """Virtual size in bytes; 0 where libvirt cannot tell (a network disk of a machine that is off)."""
        try:
            return int(self._call("read disk size", lambda d: d.blockInfo(key)[0]))
        except Refused:
            return 0

    def responsive(self) -> bool:
        """Whether the emulator can answer now. libvirt says this without asking the emulator."""

        def work(domain: Any) -> bool:
            if not domain.isActive():
                return True
            state, _, since = domain.controlInfo(0)  # milliseconds
            stuck = state == libvirt.VIR_DOMAIN_CONTROL_ERROR or since >= STUCK_AFTER
            return state == libvirt.VIR_DOMAIN_CONTROL_OK or not stuck

        return self._call("read control state", work)

    def settle(self) -> None:
        """Return when what was begun on the running machine has ended; libvirt goes on with the call of a caller that died. It
        makes one change after the other, so one that takes away what is not there comes last. Raises ``Refused`` where that
        takes longer than libvirt waits (30 s)."""
        nothing = (libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, "urn:lanfree:nothing")
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        try:
            self._call("wait for what was begun", lambda d: d.setMetadata(*nothing, live))
        except Refused as error:
            if error.refusal is not Refusal.NOT_RUNNING:  # else nothing is under way
                raise

    def agent(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 5.0) -> Any:
        """Ask the guest agent; ``timeout`` in whole seconds, at least one. The answer is the guest's word, unchecked."""
        message = json.dumps({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
        seconds = max(1, round(timeout))
        answer = self._call(command, lambda d: libvirt_qemu.qemuAgentCommand(d, message, seconds, 0), reads=False)
        return json.loads(answer).get("return")

    def agent_timeout(self, seconds: float | None) -> None:
        """How long libvirt's own agent commands may take; ``None`` puts libvirt's default back."""
        value = AGENT_BLOCK if seconds is None else max(1, round(seconds))
        self._call("set agent timeout", lambda d: d.agentSetResponseTimeout(value, 0))

    def freeze(self) -> int:
        """Freeze the guest's file systems; how many."""
        return int(self._call("freeze", lambda d: d.fsFreeze(), reads=False))

    def snapshot(self, xml: str, *, quiesce: bool) -> None:
        """One call: freeze if ``quiesce``, overlays for all disks at one moment, thaw."""
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        )
        if quiesce:
            flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
        self._call("make snapshot", lambda d: d.snapshotCreateXML(xml, flags), reads=False)

    def commit(self, key: str, top: str | None) -> None:
        """Begin to merge the active layer (``top`` is None) or the layer ``top`` into the one below it."""
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
        if top is None:
            flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        self._call("begin merge", lambda d: d.blockCommit(key, None, top, 0, flags), reads=False)

    def job(self, key: str) -> tuple[int, int] | None:
        """Bytes done and to do of the disk's block job, ``None`` without one."""
        info = self._call("read job", lambda d: d.blockJobInfo(key, 0))
        return (int(info["cur"]), int(info["end"])) if info else None

    def pivot(self, key: str) -> None:
        """End an active merge by switching to the lower layer. Refused as ``NOT_READY`` until it has caught up."""
        self._call("pivot", lambda d: d.blockJobAbort(key, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT), reads=False)

    def checkpoints(self) -> dict[str, str]:
        """Checkpoint name -> its XML without the machine's definition."""
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
        return self._call(
            "list checkpoints", lambda d: {c.getName(): c.getXMLDesc(flags) for c in d.listAllCheckpoints(0)}
        )

    def create_checkpoint(self, xml: str) -> None:
        """New dirty bitmaps that record from now on."""
        self._call("make checkpoint", lambda d: d.checkpointCreateXML(xml, 0), reads=False)

    def redefine_checkpoint(self, xml: str) -> None:
        """Tell libvirt of bitmaps that are in the images. Refused as ``BITMAP_BROKEN`` unless all of them are sound."""
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
        self._call("check checkpoint", lambda d: d.checkpointCreateXML(xml, flags))

    def delete_checkpoint(self, name: str, *, metadata_only: bool = False) -> None:
        """Delete bitmaps and metadata, or only the metadata."""
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY if metadata_only else 0
        self._call("delete checkpoint", lambda d: d.checkpointLookupByName(name).delete(flags), reads=False)

    def backup_begin(self, xml: str, checkpoint: str | None) -> None:
        """Start a pull-mode backup job."""
        self._call("begin pull backup", lambda d: d.backupBegin(xml, checkpoint, 0), reads=False)

    def backup_xml(self) -> str | None:
        """The backup job that runs now, ``None`` without one."""
        try:
            return str(self._call("read backup job", lambda d: d.backupGetXMLDesc(0)))
        except Refused:
            return None

    def abort_job(self) -> None:
        """End the machine's background job (for us: a pull backup)."""
        self._call("end job", lambda d: d.abortJob(), reads=False)

    def resume(self) -> None:
        """Let a paused machine go on."""
        self._call("resume", lambda d: d.resume(), reads=False)

    def destroy(self) -> None:
        """Stop at once, giving the emulator time to flush its images."""
        self._call("stop", lambda d: d.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL), reads=False)

    def _call(self, what: str, work: Callable[[Any], T], *, reads: bool = True) -> T:
        return self.host.call(what, lambda c: work(c.lookupByUUIDString(self.machine)), reads=reads)


def active_pools(connection: Any) -> list[Any]:
    """Storage pools of the host that are started. For use inside ``Host.call``."""
    return list(connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE))


def make_pool(connection: Any, xml: str) -> Any:
    """A transient pool, its directory made where needed; ``None`` when libvirt refuses. For use inside ``Host.call``."""
    try:
        return connection.storagePoolCreateXML(xml, libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    except libvirt.libvirtError:
        return None


def _refused(what: str, error: Any) -> Refused:
    names = {getattr(libvirt, name): name for name in CODES if hasattr(libvirt, name)}
    return refused(what, str(error), names.get(error.get_error_code(), ""))


def _alive(connection: Any) -> bool:
    with suppress(libvirt.libvirtError):
        return bool(connection.isAlive() == 1)
    return False


def _hang_up(connection: Any, watch: int | None = None) -> None:
    """``watch``: number of the events that it is registered for, which would hold it open."""

    def work() -> None:
        with suppress(libvirt.libvirtError):  # it was dead already
            if watch is not None:
                connection.domainEventDeregisterAny(watch)
        with suppress(libvirt.libvirtError):
            connection.close()

    thread = threading.Thread(target=work, name="hang-up", daemon=True)
    thread.start()
    thread.join(CLOSE_TIMEOUT)


def _open(settings: KvmHost) -> Any:
    """Connect within ``OPEN_TIMEOUT``: libvirt itself would wait for a silent host as long as TCP does."""
    _run_events()
    box: list[Any] = []

    def work() -> None:
        try:
            connection = libvirt.open(settings.uri)
            connection.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
            box.append(connection)
        except libvirt.libvirtError as error:
            box.append(str(error))

    thread = threading.Thread(target=work, name=f"connect-{settings.name}", daemon=True)
    thread.start()
    thread.join(OPEN_TIMEOUT)
    if not box:
        raise HostUnreachable(settings.name, f"no answer within {OPEN_TIMEOUT:g} s")
    if isinstance(box[0], str):
        raise HostUnreachable(settings.name, box[0])
    return box[0]


_events_lock = threading.Lock()
_events_running = False


def _run_events() -> None:
    """One thread a process drives keepalive and lifecycle events; libvirt wants it registered before any connection."""
    global _events_running  # noqa: PLW0603 - libvirt's event loop is one for the whole process
    with _events_lock:
        if _events_running:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.registerErrorHandler(lambda *_: None, None)  # it would print every error on stderr; ours are raised

        def loop() -> None:
            while True:
                try:
                    libvirt.virEventRunDefaultImpl()
                except libvirt.libvirtError:
                    time.sleep(1)  # without a pause a lasting error would eat a processor

        threading.Thread(target=loop, name="libvirt-events", daemon=True).start()
        _events_running = True
