"""Builds the lab's guest from what is installed on this machine: a real kernel, busybox and qemu-guest-agent.

No download, no loop device, no mount: ``mke2fs -d`` fills the file system. The result boots by kernel and initrd in some
seconds even under software emulation, and looks like a small Debian to libguestfs. Cached by content.

::

    system disk, 256 MiB      MBR, one ext4 partition at 1 MiB: the guest, /data with the writer's files and journal
    data disk, 64 MiB         ext4 on the whole disk, mounted at /mnt/vdb when a machine has it
"""

import gzip
import hashlib
import lzma
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zstandard

from appliance.lab.cache import cached
from proxy import command
from proxy.errors import ConfigurationError
from proxy.units import MiB

SYSTEM_SIZE = 256 * MiB
DATA_SIZE = 64 * MiB

_HOOKS = Path(__file__).parent / "hooks"
_PARTITION = MiB  # where partitioning tools put the first one
_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "ext4")
_TIMEOUT = 120.0

# hook file -> (place in the guest, mode)
_FILES = {
    "lanfree-quiesce": ("etc/qemu/fsfreeze-hook", 0o755),
    "50-writer": ("etc/lanfree/quiesce.d/50-writer", 0o755),
    "writer": ("usr/local/bin/writer", 0o755),
    "rcS": ("etc/init.d/rcS", 0o755),
    "inittab": ("etc/inittab", 0o644),
    "shutdown": ("sbin/shutdown", 0o755),
}
_DIRECTORIES = "bin sbin dev proc sys run root home tmp mnt/vdb data/files boot var/log lib/modules"
_TEXTS = {
    "etc/hostname": "labguest\n",
    "etc/passwd": "root::0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n",
    "etc/group": "root:x:0:\napp:x:1000:\n",
    "etc/fstab": "/dev/vda1 / ext4 rw,relatime 0 1\n",
    # libguestfs lists applications from here
    "var/lib/dpkg/status": "Package: qemu-guest-agent\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n"
    "Maintainer: lab\nDescription: guest agent of the lab\n\n",
    "data/journal": "",
}


@dataclass(frozen=True, slots=True)
class GuestImage:
    """The files of a built guest: kernel and initrd for direct boot, both disks as raw (sparse) and as qcow2."""

    directory: Path

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    def disk(self, name: str, form: str) -> Path:
        """``name``: ``system`` or ``data``; ``form``: ``raw`` or ``qcow2``."""
        return self.directory / f"{name}.{form}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the guest is made of, as found on this machine."""

    version: str
    kernel: Path
    agent: Path
    busybox: Path

    def key(self) -> str:
        """Changes whenever the result would."""
        digest = hashlib.sha256(self.version.encode())
        for path in (self.kernel, self.agent, self.busybox):
            found = path.stat()
            digest.update(f"{path} {found.st_size} {found.st_mtime_ns}".encode())
        for path in (Path(__file__), *sorted(_HOOKS.iterdir())):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def guest_image() -> GuestImage:
    """The guest, built now (about three seconds) or taken from the cache.

    Raises ``ConfigurationError`` with the package to install, and ``ToolFailed``.
    """
    parts = _find_parts()
    return GuestImage(cached(f"guest-{parts.key()}", lambda directory: _build(parts, directory)))


def _find_parts() -> _Parts:
    kernels = [path for path in Path("/boot").glob("vmlinuz-*") if Path("/lib/modules", _version(path)).is_dir()]
    if not kernels:
        raise ConfigurationError(
            "lab", "no kernel with its modules is installed", hint="apt-get install linux-image-cloud-amd64"
        )
    newest = max(kernels, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    agent = _program("qemu-ga", "qemu-guest-agent")
    return _Parts(_version(newest), newest, agent, _program("busybox", "busybox-static"))


def _version(kernel: Path) -> str:
    return kernel.name.removeprefix("vmlinuz-")


def _program(name: str, package: str) -> Path:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise ConfigurationError("lab", f"{name} is not installed", hint=f"apt-get install {package}")
    return Path(found)


def _build(parts: _Parts, directory: Path) -> None:
    image = GuestImage(directory)
    shutil.copyfile(parts.kernel, image.kernel)
    _build_initrd(parts, directory / "initrd", image.initrd)
    root = directory / "root"
    _fill_root(parts, root)
    for boot_file in (image.kernel, image.initrd):
        shutil.copyfile(boot_file, root / "boot" / boot_file.name)
    system = image.disk("system", "raw")
    _sparse(system, SYSTEM_SIZE)
    command.run(["sfdisk", "--quiet", system], stdin=f"{_PARTITION // 512},,83,*\n".encode(), timeout=_TIMEOUT)
    _make_ext4(system, SYSTEM_SIZE - _PARTITION, label="labroot", offset=_PARTITION, content=root)
    data = image.disk("data", "raw")
    _sparse(data, DATA_SIZE)
    _make_ext4(data, DATA_SIZE, label="labdata")
    for name in ("system", "data"):
        raw, qcow2 = image.disk(name, "raw"), image.disk(name, "qcow2")
        command.run(["qemu-img", "convert", "-O", "qcow2", raw, qcow2], timeout=_TIMEOUT)
    for scaffold in (root, directory / "initrd"):
        shutil.rmtree(scaffold)


def _fill_root(parts: _Parts, root: Path) -> None:
    for name in _DIRECTORIES.split():
        (root / name).mkdir(parents=True)
    _install_busybox(parts.busybox, root)
    (root / "sbin/init").symlink_to("../bin/busybox")
    _install(parts.agent, root / "usr/sbin/qemu-ga", 0o755)
    _install_libraries(parts.agent, root)
    _install(Path("/etc/os-release"), root / "etc/os-release", 0o644)
    if (debian := Path("/etc/debian_version")).exists():
        _install(debian, root / "etc/debian_version", 0o644)
    for name, text in _TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for hook, (place, mode) in _FILES.items():
        _install(_HOOKS / hook, root / place, mode)
    (root / "root").chmod(0o700)
    (root / "tmp").chmod(0o1777)


def _build_initrd(parts: _Parts, tree: Path, output: Path) -> None:
    (tree / "modules").mkdir(parents=True)
    (tree / "bin").mkdir()
    _install(parts.busybox, tree / "bin/busybox", 0o755)
    _install_libraries(parts.busybox, tree)
    _install(_HOOKS / "initrd-init", tree / "init", 0o755)
    order = []
    for module in _module_files(parts.version):
        name = module.name.split(".ko")[0] + ".ko"
        (tree / "modules" / name).write_bytes(_unpacked(module))
        order.append(name)
    (tree / "modules/order").write_text("".join(f"{name}\n" for name in order))
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    pack = ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0", f"--directory={tree}"]
    archive = command.run(pack, stdin=names.encode(), timeout=_TIMEOUT).stdout
    # Level 1: the guest unpacks it under emulation, and the cache keeps it once.
    output.write_bytes(gzip.compress(archive, 1, mtime=0))


def _module_files(version: str) -> Iterable[Path]:
    found: dict[Path, None] = {}
    for name in _MODULES:
        lines = command.run(["modprobe", "-S", version, "--show-depends", name], timeout=_TIMEOUT).text.splitlines()
        # "insmod PATH [options]", or "builtin NAME" for what the kernel has inside
        found.update({Path(line.split()[1]): None for line in lines if line.startswith("insmod ")})
    return found


def _unpacked(module: Path) -> bytes:
    # Distributions differ (.ko, .ko.xz, .ko.zst); busybox's insmod takes plain ones.
    data = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(data)
    if module.suffix == ".zst":
        return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    return gzip.decompress(data) if module.suffix == ".gz" else data


def _install_busybox(busybox: Path, root: Path) -> None:
    _install(busybox, root / "bin/busybox", 0o755)
    _install_libraries(busybox, root)
    for applet in command.run([busybox, "--list"], timeout=_TIMEOUT).text.split():
        if not (link := root / "bin" / applet).exists():
            link.symlink_to("busybox")


def _install_libraries(program: Path, root: Path) -> None:
    # ldd ends with 1 for a static program; then there is nothing to copy.
    for library in re.findall(r"(/\S+) \(0x", command.run(["ldd", program], timeout=_TIMEOUT, check=False).text):
        _install(Path(library), root / library.lstrip("/"), 0o755)


def _install(source: Path, place: Path, mode: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)
    place.chmod(mode)


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def _make_ext4(image: Path, size: int, *, label: str, offset: int = 0, content: Path | None = None) -> None:
    # metadata_csum and 64bit off: older readers (libguestfs appliances, sleuthkit) take it, and it has no use here.
    features = ["-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^64bit", "-L", label]
    fill = ["-d", str(content)] if content else []
    place = ["-E", f"offset={offset},root_owner=0:0"]
    command.run(["mke2fs", "-q", "-F", *features, *fill, *place, image, f"{size // 1024}k"], timeout=_TIMEOUT)
