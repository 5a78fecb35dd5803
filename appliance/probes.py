"""What ``lanfree doctor`` looks at, one function a fact. Each answers with a ``Finding`` and changes nothing.

Vendor libraries are not imported here (each has its one importing module): they are looked for, or tried in a process of
their own, which also keeps a library that crashes while loading from taking the doctor down.
"""

import errno
import importlib.util
import os
import re
import resource
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from proxy import command
from proxy.errors import ToolFailed
from proxy.units import format_size

# Programs of the system that an ordinary user's PATH leaves out.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

# "--version" answers in milliseconds; ten seconds are for a machine whose disks are saturated by a backup.
_VERSION_TIMEOUT = 10.0

# Seconds for a TCP portal: three retransmissions of a lost SYN take seven, a dead path should not cost a minute.
_PORTAL_TIMEOUT = 5.0

# No release of Lanfree is older, so a clock that shows less was reset (flat battery, virtual machine without a clock).
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)

# Seconds that two clocks may differ before restore points and locks sort wrongly.
_SKEW = 120.0


class Outcome(StrEnum):
    """``warn``: it works, but slower or with less; ``fail``: something that Lanfree is asked for cannot work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what was seen. ``remedy`` replaces the check's own when what was seen calls for another one."""

    outcome: Outcome
    detail: str
    remedy: str = ""


Probe = Callable[[], Finding]


def ok(detail: str) -> Finding:
    return Finding(Outcome.OK, detail)


def warn(detail: str, remedy: str = "") -> Finding:
    return Finding(Outcome.WARN, detail, remedy)


def fail(detail: str, remedy: str = "") -> Finding:
    return Finding(Outcome.FAIL, detail, remedy)


def find_program(name: str) -> str | None:
    """Full path of a program, looked for in PATH and in the system's own directories."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def python(minimum: tuple[int, int]) -> Finding:
    """The interpreter's version."""
    seen = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < minimum:
        return fail(f"Python {seen}; {minimum[0]}.{minimum[1]} or newer is needed")
    return ok(f"Python {seen} at {sys.executable}")


def binding(module: str, extension: str) -> Finding:
    """A binding from the distribution: both its Python part and the extension module made for this very interpreter."""
    if importlib.util.find_spec(module) is None:
        return fail(f"this Python ({sys.executable}) finds no module '{module}'")
    if importlib.util.find_spec(extension) is None:
        return fail(
            f"'{module}' is installed, but for another Python than {sys.version_info[0]}.{sys.version_info[1]}",
            "rm -rf .venv && make setup    # the virtual environment must be made from /usr/bin/python3",
        )
    return ok(f"'{module}' is there for this Python")


def loads(module: str, timeout: float = 30.0) -> Finding:
    """A compiled module of our own: present, and its shared libraries too. Loaded in a process of its own."""
    try:
        command.run([sys.executable, "-c", f"import {module}"], timeout=timeout)
    except ToolFailed as error:
        return fail(f"'{module}' does not load: {last_line(error.output) or error.outcome}")
    return ok(f"'{module}' is compiled and loads")


def program(name: str, arguments: Sequence[str], minimum: tuple[int, ...], *, needed: bool) -> Finding:
    """A program is installed, runs, and is new enough. Not ``needed``: its absence is a warning."""
    bad = fail if needed else warn
    path = find_program(name)
    if path is None:
        return bad(f"'{name}' is not installed")
    try:
        done = command.run([path, *arguments], timeout=_VERSION_TIMEOUT, check=False)
    except ToolFailed as error:
        return bad(f"'{name}' {error.outcome}")
    seen = re.search(r"\d+(?:\.\d+)+", done.text + done.stderr)
    if seen is None:
        return bad(f"'{name}' does not tell its version: {last_line(done.text + done.stderr)}")
    if tuple(int(part) for part in seen[0].split(".")) < minimum:
        return bad(f"'{name}' is version {seen[0]}; {'.'.join(map(str, minimum))} or newer is needed")
    return ok(f"{path} {seen[0]}")


def nbdkit_python() -> Finding:
    """nbdkit has its Python plugin, and that one starts."""
    path = find_program("nbdkit")
    if path is None:
        return fail("'nbdkit' is not installed", "sudo apt-get install nbdkit nbdkit-plugin-python")
    try:
        dump = command.run([path, "python", "--dump-plugin"], timeout=_VERSION_TIMEOUT).text
    except ToolFailed as error:
        return fail(f"nbdkit cannot load its Python plugin: {last_line(error.output)}")
    facts = dict(line.split("=", 1) for line in dump.splitlines() if "=" in line)
    return ok(f"plugin {facts.get('version', '?')} with Python {facts.get('python_version', '?')}")


def qemu_iscsi() -> Finding:
    """qemu-nbd can open LUNs: the iSCSI driver is a module in a package of its own. No portal listens on port 1."""
    path = find_program("qemu-img")
    if path is None:
        return fail("'qemu-img' is not installed", "sudo apt-get install qemu-utils qemu-block-extra")
    nowhere = "iscsi://127.0.0.1:1/iqn.2026-11.org.lanfree:doctor/1"
    said = command.run([path, "info", nowhere], timeout=_VERSION_TIMEOUT, check=False).stderr
    if "iSCSI:" in said:
        return ok("QEMU has its iSCSI driver")
    return fail(f"QEMU has no iSCSI driver: {last_line(said)}")


def kernel_readable(boot: Path, modules: Path) -> Finding:
    """libguestfs boots one of the machine's kernels: a kernel that this user may read, with its modules."""
    images = sorted(boot.glob("vmlinuz-*"))
    usable = [image for image in images if (modules / image.name.removeprefix("vmlinuz-")).is_dir()]
    if not usable:
        return fail(f"no kernel with its modules in {boot} and {modules}")
    readable = [image for image in usable if os.access(image, os.R_OK)]
    if not readable:
        return fail(f"{usable[-1]} cannot be read by this user", f"sudo chmod 0644 {boot}/vmlinuz-*")
    return ok(str(readable[-1]))


def space(path: Path, wanted: int, least: int) -> Finding:
    """Free bytes where ``path`` is or will be: below ``wanted`` warns, below ``least`` fails."""
    place = nearest(path)
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    said = f"{format_size(free)} free in {place}"
    if free < least:
        return fail(f"{said}; less than {format_size(least)} cannot work")
    if free < wanted:
        return warn(f"{said}; {format_size(wanted)} are advised")
    return ok(said)


def writable(path: Path, forbidden: int) -> Finding:
    """The directory can be written or made. ``forbidden``: mode bits it must not have, as 0o077 for "ours alone"."""
    place = nearest(path)
    if not place.is_dir():
        return fail(f"{place} is not a directory", f"move {place} away, it stands where a directory is configured")
    if not os.access(place, os.W_OK | os.X_OK):
        return fail(f"{place} is not writable for this user")
    if place != path:
        return ok(f"{path} can be made in {place}")
    mode = stat.S_IMODE(place.stat().st_mode)
    if mode & forbidden:
        return fail(
            f"{path} has mode {mode:04o}: other users can look into it", f"chmod {mode & ~forbidden:04o} {path}"
        )
    return ok(f"{path} is writable (mode {mode:04o})")


def secret_file(path: Path) -> Finding:
    """A file with a secret is there, can be read by us and by nobody else."""
    try:
        found = path.stat()
    except OSError as error:
        return fail(
            f"{path}: {error.strerror}", f"bring {path} back, mode 0600, or mend the configuration that names it"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return fail(f"{path} has mode {mode:04o}: other users can read it", f"chmod 0600 {path}")
    if not os.access(path, os.R_OK):
        return fail(f"{path} cannot be read by this user", f"sudo chown {os.getuid()} {path}")
    return ok(f"{path} is readable for its owner alone")


def privileges() -> Finding:
    """Root is what the lab and libvirt's system socket ask for."""
    if os.geteuid() == 0:
        return ok("running as root")
    return warn(f"running as user {os.geteuid()}: the lab cannot start, and libvirt may refuse its system socket")


def namespaces() -> Finding:
    """The lab keeps its hosts apart in mount namespaces."""
    try:
        command.run(["unshare", "--mount", "true"], timeout=_VERSION_TIMEOUT)
    except ToolFailed as error:
        return warn(f"no new mount namespace: {last_line(error.output) or error.outcome}")
    return ok("mount namespaces can be made")


def free_port(addresses: Sequence[str], ports: Iterable[int]) -> Finding:
    """One of ``ports`` can be bound on all of ``addresses``: what the lab's array does."""
    refused: OSError | None = None
    for port in ports:
        refused = next(filter(None, (_cannot_bind(address, port) for address in addresses)), None)
        if refused is None:
            return ok(f"port {port} is free on {' and '.join(addresses)}")
        if refused.errno != errno.EADDRINUSE:
            break
    return warn(f"no port for the lab's array on {' and '.join(addresses)}: {refused}")


def portal(address: str, timeout: float = _PORTAL_TIMEOUT) -> Finding:
    """An array's portal, ``host:port`` or ``[v6]:port``, takes TCP connections within ``timeout`` seconds."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        return fail(f"'{address}' is not HOST:PORT", f"write the portal '{address}' as HOST:PORT in the configuration")
    begun = time.monotonic()
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except (OSError, OverflowError) as error:
        return fail(f"{address} does not answer: {error}")
    return ok(f"{address} answers after {(time.monotonic() - begun) * 1000:.1f} ms")


def clock(witnesses: Iterable[Path], now: datetime | None = None) -> Finding:
    """The clock is neither before this release nor before files that were written here earlier."""
    moment = now or datetime.now(UTC)
    if moment < EARLIEST:
        return fail(f"the clock shows {moment:%Y-%m-%d %H:%M} UTC, which is before this release was made")
    for witness in witnesses:
        try:
            written = witness.stat().st_mtime
        except OSError:
            continue
        if written > moment.timestamp() + _SKEW:
            seconds = written - moment.timestamp()
            return fail(f"the clock is {seconds:.0f} s behind the last change of {witness}: it went back")
    return ok(f"{moment:%Y-%m-%d %H:%M:%S} UTC")


def no_bootstrap_left(note: Path) -> Finding:
    """A bootstrap that was killed while files took their places left this note: old and new may stand side by side."""
    if note.exists():
        return warn(f"a bootstrap began here and did not end: {note}")
    return ok("no bootstrap was left half done")


def open_files(wanted: int, limits: tuple[int, int] | None = None) -> Finding:
    """The soft limit of open files; ``limits`` (soft, hard) stands in for this process's own."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        return warn(f"at most {soft} open files (hard limit {hard}); {wanted} are advised")
    return ok(f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} open files")


# libguestfs with an empty disk: what a mount session does, without an image. Runs in a process of its own.
_LAUNCH = """
import guestfs
g = guestfs.GuestFS(python_return_dict=True)
g.add_drive_opts("/dev/null", format="raw", readonly=1)
g.launch()
found = g.version()
g.shutdown()
print(found["major"], found["minor"], found["release"], sep=".")
"""


def guestfs_launch(emulated: bool, timeout: float) -> Finding:
    """libguestfs really starts its appliance. ``emulated``: KVM does not work, so software emulation is asked for."""
    settings = {"LIBGUESTFS_BACKEND": "direct"}
    if emulated:
        settings["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    begun = time.monotonic()
    try:
        done = command.run([sys.executable, "-c", _LAUNCH], timeout=timeout, env=settings)
    except ToolFailed as error:
        return fail(f"libguestfs did not start: {last_line(error.output) or error.outcome}")
    how = "software emulation" if emulated else "KVM"
    return ok(f"libguestfs {done.text.strip()} started in {time.monotonic() - begun:.1f} s with {how}")


def nearest(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def last_line(text: str) -> str:
    """The last line that says something: where programs put the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _cannot_bind(address: str, port: int) -> OSError | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            return error
    return None
