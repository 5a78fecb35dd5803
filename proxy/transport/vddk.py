"""The ``lan`` transport over VMware's own library (VDDK), for sites that have it: nbdkit's vddk plugin, spawned, read over NBD.

VDDK may not be passed on and is no part of Lanfree: an administrator downloads it from the vendor, unpacks it somewhere and
names the directory. It reads any part of a disk in any order and knows what is allocated; an NFC export only goes forward.

::

    NbdSource ──Unix socket──► nbdkit vddk ──► libvixDiskLib ──902/tcp──► host

The password is handed over as the name of its file, never on the command line. The library is loaded by nbdkit alone, so
that what comes with it (its own OpenSSL) cannot meet ours, and its crash ends no backup but this disk's.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from subprocess import Popen

from proxy import command
from proxy.errors import CertificateRefused, ConfigurationError, ToolFailed, TransportRefused
from proxy.model import Format, FrozenDisk, NbdAddress, VmdkAddress
from proxy.ports import BlockSource
from proxy.transport.nbd import NbdSource
from proxy.transport.nfc import HostBudget, HostBusy

MODE = "lan"

# After the last connection was left: closing a disk takes a round trip to its host. VDDK may keep threads of its own for
# longer, which must not hold up a run.
LEAVE_SECONDS = 2.0

START_SECONDS = 120.0
"""Until nbdkit serves: VDDK logs in to vCenter and asks for a ticket first, which takes a busy vCenter a minute."""

PROBE_SECONDS = 30.0

SOCKET = "socket"

LOG_TAIL = 500
"""Bytes of nbdkit's last words that go into a refusal."""


class VddkReason(StrEnum):
    """The words of a refusal."""

    NOT_VSPHERE = "not-a-vsphere-disk"
    NO_MACHINE = "no-machine"
    NOT_INSTALLED = "vddk-not-installed"
    FAILED = "vddk-failed"
    HOST_BUSY = "host-has-no-connection-left"
    SIZE_MISMATCH = "size-mismatch"


@dataclass(frozen=True, slots=True)
class VddkSettings:
    """``library``: directory that VDDK was unpacked to (it has ``lib64``). ``password_file``: its first line is the password.

    ``thumbprint``: asked for at each start: SHA-1 of the vCenter's certificate with colons, once that was checked against
    what is trusted. ``transports``: VDDK's words, in their order; ``nbdssl`` is encrypted. ``plugin``: nbdkit's name for it,
    or a file.
    """

    library: Path
    server: str
    user: str
    password_file: Path
    thumbprint: Callable[[], str]
    port: int = 443
    transports: str = "nbdssl"
    plugin: str = "vddk"


@dataclass(frozen=True, slots=True)
class VddkFound:
    """What a look at the installation found. ``version``: of the plugin's own word, ``library``: the file that it loads."""

    version: str
    library: str


def probe(settings: VddkSettings) -> VddkFound:
    """Whether nbdkit has the plugin and the plugin finds the library: for ``lanfree doctor``. Nothing is connected to.

    Raises ``ConfigurationError`` with what is missing.
    """
    where = f"vddk {settings.library}"
    if not any((settings.library / "lib64").glob("libvixDiskLib.so*")):
        hint = "download VDDK from the vendor, unpack it, and name the directory that has lib64 in it"
        raise ConfigurationError(where, "there is no lib64/libvixDiskLib.so in it", hint=hint)
    words = ["nbdkit", settings.plugin, "--dump-plugin", f"libdir={settings.library}"]
    try:
        told = command.run(words, timeout=PROBE_SECONDS).text
    except ToolFailed as error:
        hint = "install nbdkit with its vddk plugin (nbdkit-vddk-plugin)"
        raise ConfigurationError(where, error.message, hint=hint) from error
    facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    if "vddk_default_libdir" not in facts:
        raise ConfigurationError(where, f"nbdkit's plugin {settings.plugin} is another one ({facts.get('name', '?')})")
    return VddkFound(facts.get("version", ""), facts.get("vddk_dll", ""))


class VddkTransport:
    """Opens disks of vSphere's snapshots. Refuses with a ``VddkReason``."""

    mode = MODE

    def __init__(self, settings: VddkSettings, budget: HostBudget | None = None) -> None:
        self._settings = settings
        self._budget = budget or HostBudget()

    def probe(self, disk: FrozenDisk) -> None:
        """Whether the disk is one for VDDK and VDDK is there; connects to nobody. Raises ``TransportRefused``."""
        _address(disk)
        try:
            probe(self._settings)
        except ConfigurationError as error:
            raise TransportRefused(MODE, disk.key, VddkReason.NOT_INSTALLED, error.message, hint=error.hint) from None

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Starts nbdkit for the disk. Raises ``TransportRefused``."""
        address = _address(disk)
        with ExitStack() as held:
            try:
                thumbprint = self._settings.thumbprint()
                held.enter_context(self._budget.connection(self._settings.server))
            except CertificateRefused as error:
                raise TransportRefused(MODE, disk.key, VddkReason.FAILED, error.message, hint=error.hint) from None
            except HostBusy as error:
                raise TransportRefused(MODE, disk.key, VddkReason.HOST_BUSY, str(error)) from None
            directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="lanfree-vddk-")))
            server = _Nbdkit(directory, _words(self._settings, thumbprint, address, directory / SOCKET))
            held.callback(server.stop)
            server.wait(disk.key)
            source = _connected(server, disk.key)
            if disk.size and source.size != disk.size:
                source.close()
                detail = f"VDDK shows {source.size} bytes, the disk has {disk.size}"
                raise TransportRefused(MODE, disk.key, VddkReason.SIZE_MISMATCH, detail)
            source.owns(held.pop_all())
            return source


class VddkSource(NbdSource):
    """An NBD source with the nbdkit behind it."""

    def __init__(self, address: NbdAddress, key: str) -> None:
        self._held = ExitStack()
        # Neither host nor datastore: a machine that moved between two backups still has the same disks.
        super().__init__(address, mode=MODE, disk=key, identity=f"vddk:{key}")

    def owns(self, held: ExitStack) -> None:
        """What is to be ended with it."""
        self._held = held

    def close(self) -> None:
        """Takes leave, and ends nbdkit. Allowed twice."""
        super().close()
        self._held.close()


class _Nbdkit:
    """One nbdkit, started by a thread that lives as long as it does: it ends when that thread does (--exit-with-parent), so
    also when this process is killed, and never because a worker that opened it went away."""

    def __init__(self, directory: Path, argv: Sequence[str]) -> None:
        self.socket = directory / SOCKET
        self._log = directory / "log"
        self._argv = argv
        self._process: Popen[bytes] | None = None
        self._failed: ToolFailed | None = None
        self._listening = 0
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vddk", daemon=True)
        self._thread.start()
        self._begun.wait()

    def wait(self, key: str) -> None:
        """Until it listens. Raises ``TransportRefused``."""
        if self._failed is not None:
            raise TransportRefused(MODE, key, VddkReason.NOT_INSTALLED, self._failed.message)
        deadline = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            if self._process is None or self._process.poll() is not None:
                raise TransportRefused(MODE, key, VddkReason.FAILED, f"nbdkit ended: {self.said()}")
            if time.monotonic() >= deadline:
                raise TransportRefused(MODE, key, VddkReason.FAILED, f"nbdkit does not serve: {self.said()}")
            time.sleep(0.05)
        self._listening = self._threads()

    def said(self) -> str:
        """Its last words, on one line."""
        try:
            words = self._log.read_bytes()[-LOG_TAIL:]
        except OSError:
            words = b""
        return " ".join(words.decode(errors="replace").split()) or "it said nothing"

    def stop(self) -> None:
        """Ends it, when it has closed the disk: told to end before, nbdkit leaves that out, and the host keeps its session."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._threads() > self._listening and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._process is not None:
            command.stop(self._process)
        self._thread.join()

    def _threads(self) -> int:
        """How many it has; more than while it only listened means that a connection is not over."""
        try:
            return sum(1 for _ in Path(f"/proc/{self._process.pid}/task").iterdir()) if self._process is not None else 0
        except OSError:  # it has ended
            return 0

    def _run(self) -> None:
        try:
            with self._log.open("ab") as log:
                self._process = command.spawn(self._argv, log=log)
        except ToolFailed as error:
            self._failed = error
        finally:
            self._begun.set()
        if self._process is not None:
            self._process.wait()


def _connected(server: _Nbdkit, key: str) -> VddkSource:
    """The plugin logs in when somebody connects."""
    try:
        return VddkSource(NbdAddress(f"nbd+unix:///?socket={server.socket}"), key)
    except TransportRefused as error:
        raise TransportRefused(MODE, key, VddkReason.FAILED, f"{error.detail}: {server.said()}") from None


def _words(settings: VddkSettings, thumbprint: str, address: VmdkAddress, socket: Path) -> list[str]:
    return [
        *("nbdkit", "--foreground", "--exit-with-parent", "--readonly", "--unix", str(socket), settings.plugin),
        f"libdir={settings.library}",
        f"server={settings.server}",
        f"port={settings.port}",
        f"user={settings.user}",
        f"password=+{settings.password_file}",
        f"thumbprint={thumbprint}",
        f"transports={settings.transports}",
        f"vm=moref={address.machine}",
        *([f"snapshot={address.snapshot}"] if address.snapshot else []),  # a template has none
        f"file=[{address.datastore}] {address.path}",
    ]


def _address(disk: FrozenDisk) -> VmdkAddress:
    match disk.layers:
        case (layer,) if isinstance(layer.location, VmdkAddress) and layer.format is Format.VMDK:
            address = layer.location
        case _:
            places = ", ".join(type(layer.location).__name__ for layer in disk.layers) or "nothing"
            raise TransportRefused(MODE, disk.key, VddkReason.NOT_VSPHERE, f"the hypervisor gave {places}")
    if not address.machine:
        raise TransportRefused(MODE, disk.key, VddkReason.NO_MACHINE, f"no machine is known to have {address.path}")
    return address
