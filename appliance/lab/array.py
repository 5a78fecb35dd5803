"""The lab's array: one tgtd on loopback, three targets over the same backing files.

::

    iqn.2026-01.lab.san:hosts     read-write, CHAP account "hosts"     what the hypervisor hosts use
    iqn.2026-01.lab.san:backup    read-only,  CHAP account "proxy"     what the proxy reads backups from
    iqn.2026-01.lab.san:restore   read-write, CHAP account "restore"   where restores may write

A LUN has the same number in all three. How it is recognised across them (tgt 1.0.85, seen with iscsi-inq): tgt makes the
NAA designators of VPD 0x83 from target and LUN number, so they differ between targets; the T10 vendor designator of VPD
0x83 is ``scsi_id`` and the serial number of VPD 0x80 is ``scsi_sn``, both settable. So ``identity`` (T10) and ``serial``
are equal in all targets and differ between LUNs and labs.

tgtd traps: it ignores SIGTERM while targets exist, and it goes on serving files that were unlinked. So it is ended by
deleting its targets, and after each new LUN the daemon's open files are compared with the file that was named.
"""

import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.lab.processes import ENVIRONMENT, Process, end, of_lab, wait_for
from appliance.lab.state import LunRecord, StateFile, with_lun, without_lun
from proxy import command
from proxy.errors import ConfigurationError, IntegrityError, ToolFailed

IQN = "iqn.2026-01.lab.san"
PORTALS = ("127.0.0.1", "127.0.0.2")

# Below the range from which the kernel takes ports for outgoing connections (32768 up), so that no client holds it.
_PORTS = range(13260, 14260)
_TIMEOUT = 10.0

# I/O threads for each LUN in each target. tgtd's own sixteen would be hundreds in a lab, for two processor cores.
_THREADS = "4"


@dataclass(frozen=True, slots=True)
class Target:
    """One of the array's views. ``account``: CHAP user; its secret lies in ``secrets/<account>``."""

    tid: int
    name: str
    account: str
    readonly: bool = False

    @property
    def iqn(self) -> str:
        """The target's iSCSI name."""
        return f"{IQN}:{self.name}"


HOSTS = Target(1, "hosts", "hosts")
BACKUP = Target(2, "backup", "proxy", readonly=True)
RESTORE = Target(3, "restore", "restore")
TARGETS = (HOSTS, BACKUP, RESTORE)


@dataclass(frozen=True, slots=True)
class Lun:
    """A logical unit: number (the same in all targets), backing file, size in bytes, and what tells it from others."""

    number: int
    path: Path
    size: int
    identity: str
    """T10 vendor designator of VPD page 0x83."""
    serial: str
    """VPD page 0x80."""

    @property
    def allocated(self) -> int:
        """Bytes that the backing file occupies."""
        return self.path.stat().st_blocks * 512


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one target served since the array started: bytes read and written, sessions open now."""

    read: int = 0
    written: int = 0
    sessions: int = 0


class Array:
    """The array of one lab, in this process or started by another one. Not for several threads at once."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        found = state.read()
        self.lab = found.lab
        self.port = found.port
        self.directory = state.directory / "luns"
        self._secrets = state.directory / "secrets"
        self._log = state.directory / "logs" / "tgtd.log"
        # tgtd appends its control port number to the name; the lab's own socket keeps labs and a system tgtd apart.
        self._socket = found.run / "tgtd"
        self._seen: dict[tuple[int, int, int], tuple[int, int]] = {}

    @property
    def portals(self) -> tuple[str, ...]:
        """``address:port`` of each portal."""
        return tuple(f"{address}:{self.port}" for address in PORTALS)

    @property
    def process(self) -> Process | None:
        """The running tgtd, if any (a frozen one too)."""
        return next((process for process in of_lab(self.lab) if process.name == "tgtd"), None)

    def start(self) -> None:
        """Start tgtd on the lab's port with all recorded LUNs. Raises ``ToolFailed``."""
        for path in (self.directory, self._secrets, self._log.parent):
            path.mkdir(mode=0o700, exist_ok=True)
        # Right after a kill the kernel may still hold the port for connections that it has to end; tgtd would then listen
        # on its default port and say nothing.
        if not wait_for(lambda: _bindable(self.port), timeout=_TIMEOUT):
            raise ToolFailed("tgtd", "cannot have its port", f"something else listens on {', '.join(self.portals)}")
        portals = ",".join(f"portal={portal}" for portal in self.portals)
        with self._log.open("ab") as log:
            # -C must be given, or tgtd takes its lock in a place of its own for the system's number 0.
            command.spawn(
                ["tgtd", "-f", "-C", "1", "-t", _THREADS, "--iscsi", portals], log=log, env=self._environment()
            )
        if not wait_for(self._answers, timeout=_TIMEOUT):
            raise ToolFailed("tgtd", "did not start", self._log.read_text(errors="replace"))
        served = self._tgtadm("--mode", "portal", "--op", "show")
        if any(portal not in served for portal in self.portals):
            raise ToolFailed("tgtd", f"does not serve {', '.join(self.portals)}", served)
        for target in TARGETS:
            self._add_target(target)
        for lun in self.luns():
            self._export(lun)

    def stop(self) -> None:
        """End tgtd the way it wants it: targets deleted first. Safe to call when it does not run, or is frozen."""
        process = self.process
        if process is not None:
            process.signal(signal.SIGCONT)
            with suppress(ToolFailed):  # whatever it answers, the process is ended below
                for target in TARGETS:
                    self._iscsi("--mode", "target", "--op", "delete", "--tid", str(target.tid), "--force")
                self._tgtadm("--mode", "sys", "--op", "delete")
            if not wait_for(lambda: not process.alive, timeout=2.0):
                end([process], grace=0.1)
        self._remove_sockets()

    def freeze(self) -> None:
        """The array stops answering, connections stay up (SIGSTOP)."""
        self._required().signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again (SIGCONT)."""
        self._required().signal(signal.SIGCONT)

    def kill(self) -> None:
        """The array dies without a word (SIGKILL); its LUN files stay."""
        process = self._required()
        process.signal(signal.SIGKILL)
        wait_for(lambda: not process.alive, timeout=5.0)

    def restart(self) -> None:
        """End it if it runs, then start it on the same port with the same LUNs. Counters begin again at zero."""
        self.stop()
        self._seen.clear()
        self.start()

    def luns(self) -> list[Lun]:
        """All LUNs by number."""
        return [self._lun(record) for record in sorted(self._state.read().luns, key=lambda lun: lun.number)]

    def lun(self, number: int) -> Lun:
        """One LUN. Raises ``ConfigurationError`` when the lab has none of that number."""
        for lun in self.luns():
            if lun.number == number:
                return lun
        raise ConfigurationError("lab", f"has no LUN {number}", hint="'lanfree lab status' lists them")

    def add_lun(self, size: int, *, number: int | None = None, content: Path | None = None) -> Lun:
        """A new LUN of ``size`` bytes in all three targets, empty and unallocated, or beginning with a file's content.

        Without ``number`` the lowest free one is taken. The content's holes stay unallocated.
        """
        taken = {lun.number for lun in self._state.read().luns}
        chosen = number or next(n for n in range(1, 256) if n not in taken)
        if chosen in taken:
            raise ConfigurationError("lab", f"has a LUN {chosen} already")
        lun = self._lun(LunRecord(chosen, size))
        if content is None:
            lun.path.touch()
        else:
            command.run(["cp", "--sparse=always", "--reflink=auto", content, lun.path], timeout=60)
        os.truncate(lun.path, size)
        self._state.update(lambda state: with_lun(state, LunRecord(chosen, size)))
        if self.process is not None:
            self._export(lun)
        return lun

    def remove_lun(self, number: int) -> None:
        """Take a LUN out of all targets and delete its file. Raises ``ToolFailed`` while commands are running on it."""
        lun = self.lun(number)
        for target in TARGETS:
            self._iscsi("--mode", "logicalunit", "--op", "delete", "--tid", str(target.tid), "--lun", str(number))
        self._state.update(lambda state: without_lun(state, number))
        lun.path.unlink(missing_ok=True)

    def secret_file(self, target: Target) -> Path:
        """The 0600 file that holds the CHAP secret for a target, made when first asked for. No newline at its end."""
        path = self._secrets / target.account
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(8))  # RFC 3720 8.2.1: 12 octets at least; some initiators take 16 at most
        return path

    def statistics(self) -> Mapping[str, Traffic]:
        """Bytes that the array itself counted, by target name (``hosts``, ``backup``, ``restore``).

        tgt counts a session only while it lives. Sessions that ended stay in the sum with what was last seen here, so
        ask before and after whatever is measured, and while it runs if sessions are short. Answers to commands other
        than reads (INQUIRY and the like) count as read bytes, a few hundred for each login.
        """
        living = dict(self._counters())
        self._seen.update(living)
        sums = {target.name: Traffic() for target in TARGETS}
        for target in TARGETS:
            rows = [(key, counts) for key, counts in self._seen.items() if key[0] == target.tid]
            sessions = {session for tid, _, session in living if tid == target.tid}
            read, written = sum(counts[0] for _, counts in rows), sum(counts[1] for _, counts in rows)
            sums[target.name] = Traffic(read, written, len(sessions))
        return sums

    def _counters(self) -> Iterator[tuple[tuple[int, int, int], tuple[int, int]]]:
        # tgt lun sid, then pairs of bytes and commands: read submitted, read done, write submitted, write done; errors
        for target in TARGETS:
            for line in self._iscsi("--mode", "target", "--op", "stat", "--tid", str(target.tid)).splitlines()[1:]:
                words = [int(word) for word in line.split()]
                yield (words[0], words[1], words[2]), (words[5], words[9])

    def _lun(self, record: LunRecord) -> Lun:
        name = f"{self.lab}-lun-{record.number:04}"
        # T10 vendor designator: eight bytes of vendor, then what the vendor likes (SPC-4 7.8.6.4); tgt takes 36 bytes.
        return Lun(record.number, self.directory / f"lun-{record.number}.img", record.size, f"LANFREE {name}", name)

    def _add_target(self, target: Target) -> None:
        tid = str(target.tid)
        secret = self.secret_file(target).read_text()
        self._iscsi("--mode", "target", "--op", "new", "--tid", tid, "--targetname", target.iqn)
        # tgtadm takes the secret by its command line only, so it is visible for some milliseconds. Accepted for a lab,
        # whose secrets are random and guard nothing else; arrays of real sites are not configured by this project.
        account = ["--mode", "account", "--user", target.account]
        self._tgtadm("--lld", "iscsi", *account, "--op", "new", "--password", secret)
        self._iscsi(*account, "--op", "bind", "--tid", tid)
        self._iscsi("--mode", "target", "--op", "bind", "--tid", tid, "--initiator-address", "ALL")

    def _export(self, lun: Lun) -> None:
        for target in TARGETS:
            where = ["--mode", "logicalunit", "--tid", str(target.tid), "--lun", str(lun.number)]
            self._iscsi(*where, "--op", "new", "--backing-store", str(lun.path), "--bstype", "rdwr")
            names = f"vendor_id=LANFREE,product_id=LAB,scsi_id={lun.identity},scsi_sn={lun.serial}"
            self._iscsi(*where, "--op", "update", "--params", f"{names},thin_provisioning=1")
            if target.readonly:
                self._iscsi(*where, "--op", "update", "--params", "readonly=1")
        process = self._required()
        if _open_count(process.pid, lun.path) != len(TARGETS):
            raise IntegrityError(f"LUN {lun.number}", f"tgtd does not serve {lun.path} but some other file")

    def _answers(self) -> bool:
        return (
            command.run(
                self._argv("--mode", "sys", "--op", "show"), timeout=_TIMEOUT, env=self._environment(), check=False
            ).code
            == 0
        )

    def _iscsi(self, *words: str) -> str:
        return self._tgtadm("--lld", "iscsi", *words)

    def _tgtadm(self, *words: str) -> str:
        return command.run(self._argv(*words), timeout=_TIMEOUT, env=self._environment()).text

    def _argv(self, *words: str) -> list[str]:
        return ["tgtadm", "-C", "1", *words]

    def _environment(self) -> dict[str, str]:
        return {"TGT_IPC_SOCKET": str(self._socket), ENVIRONMENT: self.lab}

    def _required(self) -> Process:
        process = self.process
        if process is None:
            raise ConfigurationError("lab", "the array does not run", hint="Array.restart() starts it again")
        return process

    def _remove_sockets(self) -> None:
        for path in self._socket.parent.glob(f"{self._socket.name}*"):
            path.unlink(missing_ok=True)


def free_port() -> int:
    """A port that nobody listens on at any of the portals' addresses. Raises ``ConfigurationError``.

    Two labs that start at the same moment could pick the same one; tgtd then fails to bind and the start is refused.
    """
    start = secrets.randbelow(len(_PORTS))
    for step in range(len(_PORTS)):
        port = _PORTS[(start + step) % len(_PORTS)]
        if all(_is_free(address, port) for address in PORTALS):
            return port
    raise ConfigurationError("lab", f"no free TCP port between {_PORTS.start} and {_PORTS.stop - 1}")


def _bindable(port: int) -> bool:
    """Whether a server that reuses addresses (as tgtd does) could listen at all portals."""
    for address in PORTALS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _open_count(pid: int, path: Path) -> int:
    wanted = path.stat()
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found = entry.stat()
            count += (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
    return count
