"""The others that do this work, and how each of them is asked to do it: the settings nearest to ours, encryption on where it
has one. ``peers.sh`` installs them; one that is not there is named in the table, with the reason.
"""

import base64
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from proxy.errors import ToolFailed
from tests.bench.repository.image import Image
from tests.bench.repository.measure import Command, prepare
from tests.bench.repository.ours import DISK

PASSWORD = "correct horse battery staple"


class Peer:
    """A tool in a directory of its own. What it cannot do is ``None``; ``how`` says how it was set."""

    name = ""
    how = ""

    def __init__(self, tools: Path, image: Image, directory: Path) -> None:
        self.tools = tools
        self.image = image
        self.home = directory / self.name
        self.store = self.home / "store"
        self.out = self.home / "out"
        self.env: dict[str, str] = {}

    def version(self) -> str:
        """Raises ``ToolFailed`` when it is not installed."""
        raise NotImplementedError

    def begin(self) -> None:
        """A fresh store."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.out.mkdir(parents=True)

    def end(self) -> None:
        """Nothing stays behind."""
        shutil.rmtree(self.home, ignore_errors=True)

    def full(self) -> Command | None:
        return None

    def known(self) -> Command | None:
        return None

    def scan(self) -> Command | None:
        return None

    def restore(self) -> Command | None:
        return None

    def discard(self) -> None:
        """What was restored goes: it is as large as the disk."""
        self._fresh_out()

    def _command(self, *argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Command:
        return Command(argv, {**self.env, **(env or {})}, cwd)

    def _fresh_out(self) -> Path:
        shutil.rmtree(self.out)
        self.out.mkdir()
        return self.out

    def _disk(self, version: Path) -> Path:
        """A version of the disk under the one path at which the peer always finds it."""
        folder = self.home / "disk"
        folder.mkdir(exist_ok=True)
        (folder / "disk.raw").unlink(missing_ok=True)
        os.link(version, folder / "disk.raw")
        return folder


class Restic(Peer):
    name = "restic"
    how = "compression auto (its least), encrypted"

    def __init__(self, tools: Path, image: Image, directory: Path) -> None:
        super().__init__(tools, image, directory)
        self.program = tools / "bin" / "restic"
        cache = str(self.home / "cache")
        self.env = {"RESTIC_REPOSITORY": str(self.store), "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": cache}

    def version(self) -> str:
        return prepare(self._command(self.program, "version")).split()[1]

    def begin(self) -> None:
        super().begin()
        prepare(self._command(self.program, "init"))

    def full(self) -> Command:
        return self._backup(self.image.v1)

    def scan(self) -> Command:
        return self._backup(self.image.v2)

    def restore(self) -> Command:
        return self._command(self.program, "restore", "latest", "--sparse", "--target", self._fresh_out())

    def _backup(self, version: Path) -> Command:
        words = ("backup", "--compression", "auto", "--no-scan", "disk.raw")
        return self._command(self.program, *words, cwd=self._disk(version))


class Borg(Peer):
    name = "borg"
    how = "fixed chunks of 1 MiB, zstd 1, repokey-blake2 (encrypted)"

    def __init__(self, tools: Path, image: Image, directory: Path) -> None:
        super().__init__(tools, image, directory)
        self.program = tools / "borg" / "bin" / "borg"
        self.env = {"BORG_REPO": str(self.store), "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self.home)}

    def version(self) -> str:
        return prepare(self._command(self.program, "--version")).split()[1]

    def begin(self) -> None:
        super().begin()
        prepare(self._command(self.program, "init", "-e", "repokey-blake2"))

    def full(self) -> Command:
        return self._create(self.image.v1, "v1")

    def scan(self) -> Command:
        return self._create(self.image.v2, "v2")

    def restore(self) -> Command:
        return self._command(self.program, "extract", "--sparse", "::v1", cwd=self._fresh_out())

    def _create(self, version: Path, name: str) -> Command:
        chunks = ("--chunker-params", "fixed,1048576", "--sparse", "--compression", "zstd,1")
        return self._command(self.program, "create", *chunks, f"::{name}", "disk.raw", cwd=self._disk(version))


class Benji(Peer):
    name = "benji"
    how = "blocks of 4 MiB (its default), zstd 1, aes_256_gcm"

    def __init__(self, tools: Path, image: Image, directory: Path) -> None:
        super().__init__(tools, image, directory)
        self.program = tools / "benji" / "bin" / "benji"

    def version(self) -> str:
        python = self.program.with_name("python")
        return prepare(self._command(python, "-c", "import importlib.metadata as m; print(m.version('benji'))")).strip()

    def begin(self) -> None:
        super().begin()
        self.store.mkdir()
        (self.home / "benji.json").write_text(json.dumps(self._configuration()))  # YAML reads JSON
        prepare(self._benji("database-init"))

    def full(self) -> Command:
        return self._benji("backup", "-u", "v1", f"file:{self.image.v1}", "disk")

    def known(self) -> Command:
        base = ("-u", "v2", "-f", "v1", "-r", self.image.hints)
        return self._benji("backup", *base, f"file:{self.image.v2}", "disk")

    def restore(self) -> Command:
        return self._benji("restore", "-s", "v1", f"file:{self._fresh_out() / 'disk.raw'}")

    def _benji(self, *words: str | Path) -> Command:
        return self._command(self.program, "-c", self.home / "benji.json", "--log-level", "WARNING", *words)

    def _configuration(self) -> dict[str, object]:
        key = {"masterKey": base64.b64encode(os.urandom(32)).decode()}
        storage = {"path": str(self.store), "activeTransforms": ["zstd", "aes"]}
        return {
            "configurationVersion": "1",
            "databaseEngine": f"sqlite:///{self.home / 'benji.sqlite'}",
            "defaultStorage": "files",
            "storages": [{"name": "files", "storageId": 1, "module": "file", "configuration": storage}],
            "transforms": [
                {"name": "zstd", "module": "zstd", "configuration": {"level": 1}},
                {"name": "aes", "module": "aes_256_gcm", "configuration": key},
            ],
            "ios": [{"name": "file", "module": "file", "configuration": {"simultaneousReads": 3}}],
        }


class Kopia(Peer):
    name = "kopia"
    how = "fixed chunks of 1 MiB, zstd-fastest, encrypted"

    def __init__(self, tools: Path, image: Image, directory: Path) -> None:
        super().__init__(tools, image, directory)
        self.program = tools / "bin" / "kopia"
        self.env = {
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CONFIG_PATH": str(self.home / "kopia.config"),
            "KOPIA_CACHE_DIRECTORY": str(self.home / "cache"),
            "KOPIA_LOG_DIR": str(self.home / "log"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def version(self) -> str:
        return prepare(self._command(self.program, "--version")).split()[0]

    def begin(self) -> None:
        super().begin()
        self.store.mkdir()
        splitter = "--object-splitter=FIXED-1M"
        prepare(self._command(self.program, "repository", "create", "filesystem", "--path", self.store, splitter))
        prepare(self._command(self.program, "policy", "set", "--global", "--compression=zstd-fastest"))

    def full(self) -> Command:
        return self._command(self.program, "snapshot", "create", "--no-progress", self._disk(self.image.v1))

    def scan(self) -> Command:
        return self._command(self.program, "snapshot", "create", "--no-progress", self._disk(self.image.v2))

    def restore(self) -> Command:
        return self._command(self.program, "restore", "--write-sparse-files", self.home / "disk", self._fresh_out())


class QemuImg(Peer):
    name = "qemu-img"
    how = "convert -c, zstd, clear"
    options: tuple[str, ...] = ()

    def version(self) -> str:
        return prepare(self._command("qemu-img", "--version")).split()[2]

    def begin(self) -> None:
        super().begin()
        self.store.mkdir()

    def full(self) -> Command:
        options = ("-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd")
        return self._convert(*options, self.image.v1, self.store / "disk.qcow2")

    def restore(self) -> Command:
        return self._convert("-O", "raw", self.store / "disk.qcow2", self._fresh_out() / "disk.raw")

    def _convert(self, *words: str | Path) -> Command:
        return self._command("qemu-img", "convert", *self.options, *words)


class QemuImgParallel(QemuImg):
    name = "qemu-img -W -m16"
    how = "convert -c, zstd, 16 coroutines, out of order, clear"
    options = ("-W", "-m", "16")


class Zstd(Peer):
    name = "zstd"
    how = "-1 -T2 of the raw file, clear"

    def version(self) -> str:
        return str(re.findall(r"v([\d.]+)", prepare(self._command("zstd", "--version")))[0])

    def begin(self) -> None:
        super().begin()
        self.store.mkdir()

    def full(self) -> Command:
        return self._command("zstd", "-q", "-1", "-T2", "-f", self.image.v1, "-o", self.store / "disk.zst")

    def restore(self) -> Command:
        out = self._fresh_out() / "disk.raw"
        return self._command("zstd", "-q", "-d", "-f", self.store / "disk.zst", "-o", out)


class VirtNbdBackup(Peer):
    """Its own program, on a machine that is off, of libvirt's test driver: no host and no guest are needed."""

    name = "virtnbdbackup"
    how = "copy of a machine that is off, lz4, clear"

    def __init__(self, tools: Path, image: Image, directory: Path) -> None:
        super().__init__(tools, image, directory)
        self.folder = tools / "virtnbdbackup"
        self.env = {"PYTHONPATH": str(self.folder / "deb/usr/lib/python3/dist-packages")}

    def version(self) -> str:
        return prepare(self._command(self.folder / "bin/python", self._program(), "-V")).split()[-1]

    def begin(self) -> None:
        super().begin()
        self.store.mkdir()
        # Only what is not raw goes through its sparse, compressed stream.
        prepare(self._command("qemu-img", "convert", "-O", "qcow2", self.image.v1, self.home / "disk.qcow2"))

    def full(self) -> Command:
        node = self.home / "node.xml"
        node.write_text(_test_node(self.home / "disk.qcow2"))
        words = ("-U", f"test://{node}", "-d", "bench", "-l", "copy", "-z", "-n", "-o", self.store / "disk")
        return self._command(self.folder / "bin/python", self._program(), *words)

    def _program(self) -> Path:
        return self.folder / "deb/usr/bin/virtnbdbackup"


PEERS = (Restic, Borg, Benji, QemuImg, QemuImgParallel, VirtNbdBackup, Kopia, Zstd)


def installed(tools: Path, image: Image, directory: Path) -> tuple[list[Peer], dict[str, str]]:
    """Those that answer when asked for their version, and why others do not."""
    there: list[Peer] = []
    missing: dict[str, str] = {}
    for kind in PEERS:
        peer = kind(tools, image, directory)
        note = tools / f"{peer.name}.missing"
        try:
            peer.version()
        except ToolFailed as error:
            missing[peer.name] = note.read_text().strip() if note.exists() else error.message
            continue
        there.append(peer)
    return there, missing


def _test_node(disk: Path) -> str:
    return f"""<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
<name>bench</name><memory>8192</memory><os><type>hvm</type></os><test:runstate>5</test:runstate><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='{DISK}'/></disk>
</devices></domain></node>
"""
