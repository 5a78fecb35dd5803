"""The whole lab as one thing: up, attach from elsewhere, look, use, down."""

import json
import os
import secrets
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.kvm import kvm_works
from appliance.lab import agent
from appliance.lab.array import BACKUP, HOSTS, RESTORE, Array, Lun, Target, free_port
from appliance.lab.guest import GuestImage, guest_image
from appliance.lab.hosts import Host
from appliance.lab.machines import MACHINES, Machine, domain_xml, machine_named, make_disks
from appliance.lab.pki import make_pki
from appliance.lab.processes import Process, end, of_lab
from appliance.lab.state import LOCK, NAME, State, StateFile
from proxy.errors import ConfigurationError, ToolFailed

# Unix socket paths end at 108 bytes, and lab directories can be deep (test directories are).
RUN = Path("/run/lanfree-lab")

RUNNING = ("raw-lun", "qcow2-lun")
"""Machines that are started by default: what the demo shows."""

# A guest boots in five to ten seconds under software emulation on an idle machine; busy test machines need more.
BOOT_TIMEOUT = 120.0
_MIGRATION_TIMEOUT = 60.0

CONFIGURATION = "lanfree.toml"
"""Name under which the configuration is kept in the lab's directory; ``down`` removes it."""

_PARTS = ("luns", "secrets", "logs", "hosts", "shared", "guest", "pki", "repository", "state", "restored")


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host: does its libvirtd answer?"""

    name: str
    uri: str
    running: bool


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """A machine that a host knows, and its state there in libvirt's words (``running``, ``shut off``)."""

    name: str
    host: str
    state: str


@dataclass(frozen=True, slots=True)
class LabStatus:
    """What ``lanfree lab status`` shows. ``processes``: everything that runs for the lab."""

    lab: str
    directory: Path
    portals: tuple[str, ...]
    array_running: bool
    hosts: tuple[HostStatus, ...]
    machines: tuple[MachineStatus, ...]
    luns: tuple[Lun, ...]
    processes: tuple[Process, ...]


class Lab:
    """A lab in a directory. As a context manager it goes down at the end. Not for several threads at once."""

    def __init__(self, directory: Path) -> None:
        """For ``up`` and ``attach``."""
        self.directory = directory
        self._state = StateFile(directory)
        found = self._state.read()
        self.id = found.lab
        self.run = found.run
        self.array = Array(self._state)
        self.shared = directory / "shared"
        self.hosts = tuple(Host(name, self.id, directory / "hosts" / name, self.run / name) for name in found.hosts)

    @classmethod
    def up(
        cls, directory: Path, *, machines: Sequence[str] = RUNNING, hosts: int = 2, more: Sequence[Machine] = ()
    ) -> Self:
        """Bring up a lab in ``directory`` (made if need be): all machines defined on the first host, ``machines`` started.
        ``more``: further machines (``machines.fleet``), defined on one host after the other and left off.

        Returns when their agents answer. Raises ``ConfigurationError`` (not root, a lab is there already, a package is
        missing) and ``ToolFailed``; then nothing is left behind.
        """
        wanted = [machine_named(name) for name in machines]
        if os.geteuid() != 0:
            raise ConfigurationError("lab", "needs root for mount namespaces", hint="run it with sudo")
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        name = secrets.token_hex(4)
        state = State(name, RUN / name, free_port(), tuple(f"h{number}" for number in range(1, hosts + 1)))
        StateFile(directory).create(state)
        try:
            lab = cls(directory)
            lab._build(wanted, more)
        except BaseException:  # an interrupted start, too, must not leave daemons behind
            cls(directory).down()
            raise
        return lab

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The lab that runs in ``directory``. Raises ``ConfigurationError`` when there is none."""
        return cls(directory.resolve())

    def down(self) -> None:
        """End every process of the lab and remove its files. Works from any process, after any crash, and twice."""
        if (tgtd := self.array.process) is not None:
            tgtd.signal(signal.SIGCONT)  # a machine cannot end while its array is frozen
        for _ in range(3):  # a libvirtd that is just starting a machine adds one more
            if not (rest := [process for process in of_lab(self.id) if process.name != "tgtd"]):
                break
            end(rest, grace=3.0)
        self.array.stop()
        if rest := of_lab(self.id):
            names = ", ".join(f"{process.name} ({process.pid})" for process in rest)
            raise ToolFailed("lab", "could not end all of its processes", names)
        shutil.rmtree(self.run, ignore_errors=True)
        for part in _PARTS:
            shutil.rmtree(self.directory / part, ignore_errors=True)
        # The state last: as long as anything may be left, 'down' can be asked again.
        for name in (CONFIGURATION, f"{CONFIGURATION}.previous", LOCK, NAME):
            (self.directory / name).unlink(missing_ok=True)
        for place in (self.directory, RUN):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def status(self) -> LabStatus:
        """As it is now. A host that does not answer is shown as not running, its machines are missing."""
        hosts = tuple(HostStatus(host.name, host.uri, host.answers()) for host in self.hosts)
        answering = [host for host, status in zip(self.hosts, hosts, strict=True) if status.running]
        machines = tuple(
            MachineStatus(name, host.name, state) for host in answering for name, state in host.machines().items()
        )
        processes = tuple(of_lab(self.id))
        running = any(process.name == "tgtd" for process in processes)
        luns = tuple(self.array.luns())
        return LabStatus(self.id, self.directory, self.array.portals, running, hosts, machines, luns, processes)

    def host(self, name: str) -> Host:
        """A host by name. Raises ``ConfigurationError``."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise ConfigurationError("lab", f"has no host {name!r}", hint=f"it has {', '.join(h.name for h in self.hosts)}")

    def host_of(self, machine: str) -> Host:
        """Where a machine runs, else where it is defined. Raises ``ConfigurationError``."""
        places = self._places(machine, [host for host in self.hosts if host.answers()])
        if not places:
            raise ConfigurationError("lab", f"no host knows a machine {machine!r}")
        return places[0][0]

    def start(self, *machines: str) -> None:
        """Start machines at once and return when the agents of all of them answer. Raises ``ToolFailed``."""
        with ThreadPoolExecutor(max_workers=max(1, len(machines))) as pool:
            list(pool.map(self._start, machines))

    def stop(self, machine: str) -> None:
        """Pull a machine's plug; it stays defined."""
        self.host_of(machine).virsh("destroy", machine)

    def shutdown(self, machine: str) -> None:
        """Shut a machine down cleanly through its agent and wait until it is off."""
        host = self.host_of(machine)
        host.virsh("shutdown", machine, "--mode", "agent")
        host.wait_for_state(machine, "shut off")

    def stop_host(self, name: str) -> None:
        """End a host's libvirtd; its machines run on, as they do on a real host. Raises ``ConfigurationError``."""
        process = self.host(name).process
        if process is None:
            raise ConfigurationError("lab", f"host {name} does not run")
        end([process], grace=5.0)

    def start_host(self, name: str) -> None:
        """Start a host again that was stopped; it finds its machines. Raises ``ToolFailed``."""
        host = self.host(name)
        host.launch(self.directory / "pki" / "server")
        host.wait(self.array.secret_file(HOSTS))

    def migrate(self, machine: str, to_host: str) -> None:
        """Live migration; the definition moves along, as in a cluster. Raises ``ToolFailed``.

        Also with files in the machine's chain (an overlay of a snapshot, a qcow2 file): libvirt calls that unsafe, since
        another host's page cache might be stale; the lab's hosts are one kernel with one page cache.
        """
        source, target = self.host_of(machine), self.host(to_host)
        socket = self.run / f"migrate-{machine}"
        options = ["--live", "--persistent", "--undefinesource", "--unsafe", "--migrateuri", f"unix://{socket}"]
        try:
            source.virsh("migrate", machine, target.uri, *options, timeout=_MIGRATION_TIMEOUT)
        finally:
            socket.unlink(missing_ok=True)

    def qemu(self, machine: str) -> Process:
        """The QEMU process of a running machine (for faults: kill it). Raises ``ConfigurationError``."""
        for process in of_lab(self.id):
            if process.name.startswith("qemu-system") and f"guest={machine}," in process.command_line:
                return process
        raise ConfigurationError("lab", f"machine {machine!r} does not run")

    def guest_run(self, machine: str, argv: Sequence[str], timeout: float = 30.0) -> tuple[int, bytes]:
        """Run a program in the guest: exit code and stdout. Raises ``ToolFailed``."""
        return agent.run(self.host_of(machine), machine, argv, timeout=timeout)

    def guest_read(self, machine: str, path: str) -> bytes:
        """A file of the guest. Raises ``ToolFailed``."""
        return agent.read(self.host_of(machine), machine, path)

    def guest_write(self, machine: str, path: str, data: bytes) -> None:
        """Create or replace a small file in the guest. Raises ``ToolFailed``."""
        agent.write(self.host_of(machine), machine, path, data)

    @property
    def client_certificates(self) -> Path:
        """Directory with the proxy's certificate for NBD over TLS (QEMU's file names)."""
        return self.directory / "pki" / "client"

    @property
    def boot(self) -> GuestImage:
        """Kernel and initrd that the machines' definitions name."""
        return GuestImage(self.directory / "guest")

    def configuration(self) -> str:
        """A lanfree.toml for this lab: repository and state under the lab's directory."""
        sections = [
            f"[repository]\npath = {_quoted(self.directory / 'repository')}\n"
            f"key_file = {_quoted(self.directory / 'secrets' / 'repository.key')}\n",
            f"[state]\ndirectory = {_quoted(self.directory / 'state')}\n",
            *(self._host_section(host) for host in self.hosts),
            *(self._target_section(target) for target in (BACKUP, RESTORE)),
            f"[raw]\nshared_directories = [{_quoted(self.shared)}]\n",
        ]
        return "\n".join(sections)

    def _host_section(self, host: Host) -> str:
        return f"""\
[[host]]
name = {_quoted(host.name)}
uri = {_quoted(host.uri)}
overlay_directory = {_quoted(self.shared / "overlays")}
tls_directory = {_quoted(self.client_certificates)}
"""

    def _target_section(self, target: Target) -> str:
        return f"""\
[[san.target]]
iqn = {_quoted(target.iqn)}
portals = [{", ".join(_quoted(portal) for portal in self.array.portals)}]
initiator = "iqn.2026-11.org.lanfree:proxy"
chap_user = {_quoted(target.account)}
chap_secret_file = {_quoted(self.array.secret_file(target))}
presents = [{_quoted(HOSTS.iqn)}]
access = {_quoted(target.name)}
"""

    def _build(self, wanted: Sequence[Machine], more: Sequence[Machine]) -> None:
        for part in ("logs", "hosts", "guest", "secrets", "shared/overlays"):
            (self.directory / part).mkdir(mode=0o700, parents=True)
        self.run.mkdir(mode=0o700, parents=True)
        make_pki(self.directory / "pki")
        for host in self.hosts:
            host.launch(self.directory / "pki" / "server")
        secret = self.array.secret_file(HOSTS)
        with ThreadPoolExecutor() as pool:
            # On a machine's first lab libvirt's questions to QEMU and the KVM trial take seconds; disks are made meanwhile.
            waiting: list[Future[object]] = [pool.submit(host.wait, secret) for host in self.hosts]
            waiting.append(pool.submit(kvm_works))
            image = guest_image()
            for source, place in ((image.kernel, self.boot.kernel), (image.initrd, self.boot.initrd)):
                shutil.copyfile(source, place)
            self.array.start()
            for machine in (*MACHINES.values(), *more):
                make_disks(machine, self.array, image, self.shared)
            for future in waiting:
                future.result()
        for machine in MACHINES.values():
            self._define(machine, self.hosts[0])
        for number, machine in enumerate(more):
            self._define(machine, self.hosts[number % len(self.hosts)])
        self.start(*(machine.name for machine in wanted))

    def _define(self, machine: Machine, host: Host) -> None:
        console = self.directory / "logs" / f"{machine.name}.console"
        place = self.directory / "logs" / f"{machine.name}.xml"
        kvm, _ = kvm_works()
        place.write_text(
            domain_xml(machine, array=self.array, boot=self.boot, shared=self.shared, console=console, kvm=kvm)
        )
        host.virsh("define", place)

    def _start(self, machine: str) -> None:
        host = self.host_of(machine)
        host.virsh("start", machine, timeout=BOOT_TIMEOUT)
        try:
            agent.wait_until_answers(host, machine, timeout=BOOT_TIMEOUT)
        except ToolFailed as error:
            console = self.directory / "logs" / f"{machine}.console"
            error.add_note(console.read_text(errors="replace")[-2000:] if console.exists() else "it has no console")
            raise

    def _places(self, machine: str, hosts: Sequence[Host]) -> list[tuple[Host, str]]:
        """Hosts that know the machine with its state there, running ones first."""
        known = [(host, state) for host in hosts if (state := host.state_of(machine)) is not None]
        return sorted(known, key=lambda place: place[1] == "shut off")


def _quoted(value: object) -> str:
    # A JSON string is a TOML basic string, as long as nothing beyond the BMP is written as surrogates.
    return json.dumps(str(value), ensure_ascii=False)
