"""``lanfree doctor``: what this machine has and lacks, as a table of checks, each with its one-line remedy.

A check is a row: a stable id (for ``--json`` and for people who search), the remedy, and a probe from
``appliance.probes``. ``diagnose`` runs rows one after the other and yields results as they come, so that a slow one does
not hide the others. No adapter is imported here; whoever wires them adds rows of his own (``extra``), for example one a
configured host.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance import probes
from appliance.config import Settings
from appliance.kvm import kvm_works
from appliance.probes import Finding, Outcome, Probe, find_program, last_line
from appliance.protection import unfinished
from proxy.errors import LanfreeError, ToolFailed
from proxy.units import GiB, MiB

__all__ = ["Check", "Finding", "Outcome", "Probe", "Result", "Site", "checks", "diagnose", "site_of", "worst"]

# Where distributions put kernels and their modules.
_BOOT = Path("/boot")
_MODULES = Path("/lib/modules")

# The lab's array takes the first free port from here on; twenty are more labs than one machine carries.
_LAB_PORTS = range(13260, 13280)
_LAB_ADDRESSES = ("127.0.0.1", "127.0.0.2")

# libguestfs needs 10-14 s under software emulation on a quiet machine, 35 s on a loaded one, and once the time to build
# its appliance. Less would call a busy machine broken.
_LAUNCH_LIMIT = 180.0

# A default soft limit of 1024 carries four runs (each: 16 chunk files, 8 sessions, a few pipes) several times over.
_OPEN_FILES = 1024


@dataclass(frozen=True, slots=True)
class Check:
    """One row. ``id``: stable, dotted; ``remedy``: one line, the exact command where there is one."""

    id: str
    remedy: str
    probe: Probe

    def run(self) -> "Result":
        """Probe. What a probe lets out counts as failed: the doctor itself does not fall ill."""
        try:
            found = self.probe()
        except (LanfreeError, OSError) as error:
            hint = error.hint if isinstance(error, LanfreeError) and not isinstance(error, ToolFailed) else ""
            found = probes.fail(last_line(str(error)) or type(error).__name__, hint)
        remedy = "" if found.outcome is Outcome.OK else found.remedy or self.remedy
        return Result(self.id, found.outcome, found.detail, remedy)


@dataclass(frozen=True, slots=True)
class Result:
    """``check``: id of the row; ``remedy`` is empty when and only when the outcome is ok."""

    check: str
    outcome: Outcome
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Site:
    """What is configured here. ``None``: not configured, so not looked at. ``portals``: ``HOST:PORT``.

    ``lab``: look at what the built-in lab needs too; ``launch``: really start libguestfs (10 to 40 seconds).
    """

    repository: Path | None = None
    state: Path | None = None
    secrets: Sequence[Path] = ()
    portals: Sequence[str] = ()
    lab: bool = True
    launch: bool = True


def site_of(settings: Settings, *, lab: bool = True, launch: bool = True) -> Site:
    """The facts of a configuration that the doctor looks at."""
    targets = settings.san.target
    return Site(
        repository=settings.repository.path if settings.repository.s3 is None else None,
        state=settings.state.directory,
        secrets=tuple(dict.fromkeys(file for file in _secrets(settings) if file is not None)),
        portals=tuple(dict.fromkeys(portal for target in targets for portal in target.portals)),
        lab=lab,
        launch=launch,
    )


def _secrets(settings: Settings) -> Iterator[Path | None]:
    """Files that nobody but us may read."""
    yield settings.repository.key_file
    yield settings.repository.passphrase_file
    for target in settings.san.target:
        yield target.chap_secret_file
    yield settings.web.key_file
    yield settings.web.oidc.client_secret_file if settings.web.oidc is not None else None
    for way in settings.notify:
        yield way.secret_file
        yield way.url_file


def diagnose(site: Site, extra: Sequence[Check] = ()) -> Iterator[Result]:
    """Run every row for this site, ``extra`` among them; results come one by one. Changes nothing on the machine."""
    for check in checks(site, extra):
        yield check.run()


def worst(results: Sequence[Result]) -> Outcome:
    """The gravest outcome; ok for none."""
    order = (Outcome.OK, Outcome.WARN, Outcome.FAIL)
    return max((result.outcome for result in results), key=order.index, default=Outcome.OK)


def checks(site: Site, extra: Sequence[Check] = ()) -> list[Check]:
    """All rows for this site: basic ones first, then ``extra``, then those that take seconds."""
    rows = [
        Check(
            "python", "use the distribution's own Python: rm -rf .venv && make setup", partial(probes.python, (3, 11))
        ),
        *_bindings(),
        *_programs(site),
        Check("qemu.iscsi", _install("qemu-block-extra"), probes.qemu_iscsi),
        Check("nbdkit.python", _install("nbdkit-plugin-python"), probes.nbdkit_python),
        Check(
            "iscsi.binding",
            f"{_install('libiscsi-dev gcc python3-dev')} && {sys.executable} -m proxy.transport.iscsi.build",
            partial(probes.loads, "proxy.transport.iscsi._libiscsi"),
        ),
        *_machine(),
        Check(
            "files.direct",
            "run as root on x86_64, after 'make setup'; until then an appliance reads all files",
            _direct,
        ),
        *_directories(site),
        *(Check(f"secret.{path}", f"chmod 0600 {path}", partial(probes.secret_file, path)) for path in site.secrets),
        *(Check(f"portal.{portal}", _portal_remedy(portal), partial(probes.portal, portal)) for portal in site.portals),
        *(_lab() if site.lab else ()),
        *extra,
        Check("kvm", "enable virtualisation in the firmware (or nesting in the outer hypervisor)", _kvm),
        Check("guestfs.kernel", _KERNEL_REMEDY, partial(probes.kernel_readable, _BOOT, _MODULES)),
    ]
    if site.launch:
        remedy = "LIBGUESTFS_BACKEND=direct libguestfs-test-tool    # (package libguestfs-tools) tells more"
        rows.append(Check("guestfs.launch", remedy, _launch))
    return rows


@dataclass(frozen=True, slots=True)
class _Program:
    """``minimum`` carries its reason beside the row; ``lab``: only the lab needs it."""

    name: str
    package: str
    minimum: tuple[int, ...]
    version: tuple[str, ...] = ("--version",)
    lab: bool = False


_PROGRAMS = (
    _Program("qemu-img", "qemu-utils", (5, 2)),
    _Program("qemu-nbd", "qemu-utils", (5, 2)),  # 5.2: --allocation-depth, the changes of a rolling overlay
    _Program("nbdkit", "nbdkit", (1, 24)),  # 1.24: Python plugins of API version 2 that read in parallel
    _Program("qemu-system-x86_64", "qemu-system-x86", (5, 2)),  # libguestfs runs in it, as new as the tools
    _Program("virsh", "libvirt-clients", (7, 6), lab=True),  # 7.6: checkpoints without experimental switches
    _Program("libvirtd", "libvirt-daemon", (7, 6), lab=True),
    _Program("tgtd", "tgt", (1, 0), lab=True),
    _Program("tgtadm", "tgt", (1, 0), lab=True),
    _Program("busybox", "busybox-static", (1, 30), version=("--help",), lab=True),
    _Program("qemu-ga", "qemu-guest-agent", (5, 2), lab=True),
    _Program("mke2fs", "e2fsprogs", (1, 43), version=("-V",), lab=True),  # 1.43: -d fills the file system unmounted
    _Program("sfdisk", "fdisk", (2, 30), lab=True),
    _Program("cpio", "cpio", (2, 0), lab=True),
    _Program("openssl", "openssl", (1, 1), version=("version",), lab=True),
)

_KERNEL_REMEDY = "sudo apt-get install linux-image-cloud-amd64    # or any kernel package; Ubuntu: linux-image-virtual"


def _install(packages: str) -> str:
    return f"sudo apt-get install {packages}"


def _bindings() -> Iterator[Check]:
    # Module, its extension module (made for one version of Python), the package that has both.
    for module, extension, package in (
        ("libvirt", "libvirtmod", "python3-libvirt"),
        ("nbd", "libnbdmod", "python3-libnbd"),
        ("guestfs", "libguestfsmod", "python3-guestfs"),
    ):
        remedy = f"{_install(package)} && make setup"
        yield Check(f"binding.{module}", remedy, partial(probes.binding, module, extension))


def _programs(site: Site) -> Iterator[Check]:
    for row in _PROGRAMS:
        if row.lab and not site.lab:
            continue
        probe = partial(probes.program, row.name, row.version, row.minimum, needed=not row.lab)
        yield Check(f"program.{row.name}", _install(row.package), probe)


def _machine() -> Iterator[Check]:
    yield Check("privileges", "run as root: sudo lanfree doctor", probes.privileges)
    yield Check(
        "open-files", "ulimit -n 4096    # or LimitNOFILE= in the service", partial(probes.open_files, _OPEN_FILES)
    )
    temporary = Path(tempfile.gettempdir())
    # The lab's guest and restore staging; below the least not even QEMU's own temporary files fit.
    yield Check(
        "space.temporary",
        f"free space in {temporary}, or set TMPDIR to a larger place",
        partial(probes.space, temporary, GiB, 64 * MiB),
    )
    # libguestfs keeps its appliance there: 200 to 500 MiB sparse, made at the first launch.
    cache = Path(os.environ.get("LIBGUESTFS_CACHEDIR") or os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108  # libguestfs's own default
    yield Check(
        "space.guestfs",
        f"free space in {cache}, or set LIBGUESTFS_CACHEDIR to a larger place",
        partial(probes.space, cache, GiB, 512 * MiB),
    )


def _directories(site: Site) -> Iterator[Check]:
    witnesses = [path for path in (site.repository, site.state) if path is not None]
    yield Check(
        "clock", "sudo timedatectl set-ntp true    # or set the clock: sudo date -s", partial(probes.clock, witnesses)
    )
    if site.repository is not None:
        path = site.repository
        # A first full backup of even a small machine takes gigabytes; a manifest that cannot be written fails the run.
        remedy = f"free space on {path}, or enlarge its file system"
        yield Check("space.repository", remedy, partial(probes.space, path, 20 * GiB, GiB))
        remedy = f"sudo install -d -m 0700 -o {os.geteuid()} {path}"
        # It holds every machine's data; a group may share it.
        yield Check("writable.repository", remedy, partial(probes.writable, path, 0o007))
    if site.state is not None:
        path = site.state
        # Catalog and workflow records: about 200 bytes a file of a machine, and SQLite's log beside it.
        yield Check(
            "space.state", f"enlarge the file system of {path}", partial(probes.space, path, 2 * GiB, 256 * MiB)
        )
        remedy = f"give the same 'lanfree bootstrap' again; if it finds everything there: rm {path / unfinished.NAME}"
        yield Check("bootstrap", remedy, partial(probes.no_bootstrap_left, path / unfinished.NAME))
        remedy = f"sudo install -d -m 0700 -o {os.geteuid()} {path}"
        yield Check("writable.state", remedy, partial(probes.writable, path, 0o077))


def _portal_remedy(portal: str) -> str:
    host, _, port = portal.rpartition(":")
    return f"check cable, VLAN, firewall and the array's portal: nc -zv {host.strip('[]')} {port}"


def _lab() -> Iterator[Check]:
    yield Check(
        "lab.namespaces", "run as root; in a container: docker run --privileged (CAP_SYS_ADMIN)", probes.namespaces
    )
    yield Check(
        "lab.port",
        "end the labs that are up: lanfree lab down    # 'ss -ltnp' shows who holds the ports",
        partial(probes.free_port, _LAB_ADDRESSES, _LAB_PORTS),
    )


def _direct() -> Finding:
    from mounter.choose import available  # noqa: PLC0415  # only this row needs it

    found = available()
    if not found.works:
        return probes.warn(f"restore points are not read without an appliance: {found.detail}")
    return probes.ok(
        f"clean ext, NTFS and FAT volumes are read in a sandbox{': ' if found.detail else ''}{found.detail}"
    )


def _kvm() -> Finding:
    works, how = kvm_works()
    if works:
        return probes.ok(how)
    if find_program("qemu-system-x86_64") is None:
        return probes.fail("KVM cannot be tried without QEMU", _install("qemu-system-x86"))
    return probes.warn(f"{how}; software emulation is used, about ten times slower")


def _launch() -> Finding:
    return probes.guestfs_launch(emulated=not kvm_works()[0], timeout=_LAUNCH_LIMIT)
