"""nbdkit's vddk plugin with a stand-in for VMware's library: what is asked of it, what comes back, what is never shown.

Where nbdkit has no vddk plugin (Debian), ``vddk_stub/plugin.py`` takes its place, behind an ``nbdkit`` of the tests' own in the
path: the command line, the parameters and the library's calls are the same.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from proxy.command import run
from proxy.errors import CertificateRefused, ConfigurationError, ToolFailed, TransportRefused
from proxy.extents import Kind, is_map
from proxy.model import Format, FrozenDisk, Layer, LunAddress, VmdkAddress
from proxy.transfer import copy
from proxy.transport import vddk
from proxy.transport.nfc import HostBudget
from proxy.transport.vddk import VddkSettings, VddkTransport
from proxy.units import KiB, MiB

pytestmark = pytest.mark.tools

STUB = Path(__file__).parent / "vddk_stub"
SIZE = 5 * MiB + 512
THUMBPRINT = ":".join(["AB"] * 20)
PASSWORD = "pass word with spaces, and =signs"


def content() -> bytes:
    data = bytearray(SIZE)
    data[: 700 * KiB] = random.Random(1).randbytes(700 * KiB)
    data[3 * MiB : 3 * MiB + 100] = b"x" * 100
    data[-512:] = b"y" * 512
    return bytes(data)


DATA = content()


def has_plugin() -> bool:
    try:
        run(["nbdkit", "vddk", "--dump-plugin"], timeout=30)
    except ToolFailed:
        return False
    return True


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VddkSettings]:
    library = tmp_path / "vmware-vix-disklib-distrib"
    (library / "lib64").mkdir(parents=True)
    built = library / "lib64" / "libvixDiskLib.so.8"
    run(["gcc", "-shared", "-fPIC", "-O1", "-o", built, STUB / "vixdisklib.c", "-lpthread"], timeout=120)
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "disk").write_bytes(DATA)
    facts = [
        "vc.example",
        "backup@vsphere.local",
        PASSWORD,
        THUMBPRINT,
        "moref=vm-12",
        "snapshot-7",
        "[ds 1] web/web.vmdk",
    ]
    (stub / "expected").write_text("\n".join(facts) + "\n")
    monkeypatch.setenv("LANFREE_VDDK_STUB", str(stub))
    if not has_plugin():
        bin_directory = tmp_path / "bin"
        bin_directory.mkdir()
        script = bin_directory / "nbdkit"
        script.write_text(
            "#!/bin/bash\n"
            'words=(); for word; do [[ $word == vddk ]] && words+=(python "$PLUGIN") || words+=("$word"); done\n'
            'exec /usr/bin/nbdkit "${words[@]}"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PLUGIN", str(STUB / "plugin.py"))
        monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\nsecond line\n")
    password.chmod(0o600)
    yield VddkSettings(library, "vc.example", "backup@vsphere.local", password, lambda: THUMBPRINT)
    assert nbdkits(tmp_path) == []


def nbdkits(directory: Path) -> list[psutil.Process]:
    """Those that the test has started and that still run."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["name"] == "nbdkit" and any(str(directory) in word for word in words):
            found.append(process)
    return found


def frozen(**changed: object) -> FrozenDisk:
    facts: dict[str, object] = {
        "datastore": "ds 1",
        "path": "web/web.vmdk",
        "machine": "vm-12",
        "snapshot": "snapshot-7",
    }
    address = VmdkAddress(**{**facts, **changed})  # type: ignore[arg-type]
    return FrozenDisk("scsi0:0", SIZE, (Layer(address, Format.VMDK),))


class Kept:
    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)


def test_the_disk_comes_through_with_its_holes(site: VddkSettings, tmp_path: Path) -> None:
    transport = VddkTransport(site)
    transport.probe(frozen())
    kept = Kept()
    with transport.open(frozen()) as source:
        assert (source.size, source.identity) == (SIZE, "vddk:scsi0:0")
        extents = source.extents()
        copy(source, kept, extents, disk="scsi0:0")
        part = bytearray(1000)
        source.read_into(3 * MiB - 500, memoryview(part))
    assert kept.data == DATA
    assert bytes(part) == DATA[3 * MiB - 500 : 3 * MiB + 500]
    assert is_map(extents, SIZE)
    assert sum(e.length for e in extents if e.kind is Kind.ZERO) > 3 * MiB
    calls = (tmp_path / "stub" / "calls").read_text()
    assert "ConnectEx nbdssl" in calls
    assert calls.count("Open ") == calls.count("Close") == calls.count("Disconnect")


def test_the_password_is_in_no_command_line(site: VddkSettings, tmp_path: Path) -> None:
    with VddkTransport(site).open(frozen()):
        running = nbdkits(tmp_path)
        assert len(running) == 1
        assert PASSWORD not in " ".join(running[0].cmdline())
        assert PASSWORD not in " ".join(running[0].environ().values())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"snapshot": "snapshot-8"}, "not found"),
        ({"path": "web/other.vmdk"}, "not found"),
    ],
)
def test_what_the_library_refuses_is_told_in_its_words(
    site: VddkSettings, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(TransportRefused, match=words) as error:
        VddkTransport(site).open(frozen(**changed))
    assert error.value.reason == "vddk-failed"


def test_a_wrong_password_or_thumbprint_is_refused_and_not_shown(site: VddkSettings) -> None:
    site.password_file.write_text("another-secret\n")
    with pytest.raises(TransportRefused, match="permissions") as error:
        VddkTransport(site).open(frozen())
    assert "another-secret" not in str(error.value)
    wrong = VddkSettings(site.library, site.server, site.user, site.password_file, lambda: "00:11")
    with pytest.raises(TransportRefused, match="certificate"):
        VddkTransport(wrong).open(frozen())

    def another() -> str:
        raise CertificateRefused("vc.example:443", "AA", "BB")

    changed = VddkSettings(site.library, site.server, site.user, site.password_file, another)
    with pytest.raises(TransportRefused, match="certificate"):
        VddkTransport(changed).open(frozen())


def test_another_size_and_other_disks_are_refused(site: VddkSettings) -> None:
    transport = VddkTransport(site)
    lun = FrozenDisk("vda", SIZE, (Layer(LunAddress("iqn", 1), Format.RAW),))
    larger = FrozenDisk("scsi0:0", SIZE + 512, frozen().layers)
    for disk, reason in ((lun, "not-a-vsphere-disk"), (frozen(machine=""), "no-machine"), (larger, "size-mismatch")):
        with pytest.raises(TransportRefused) as error:
            transport.open(disk)
        assert error.value.reason == reason


def test_without_the_library_or_a_turn_it_is_refused(site: VddkSettings, tmp_path: Path) -> None:
    missing = VddkSettings(tmp_path / "nothing", site.server, site.user, site.password_file, site.thumbprint)
    with pytest.raises(ConfigurationError, match="libvixDiskLib"):
        vddk.probe(missing)
    with pytest.raises(TransportRefused) as error:
        VddkTransport(missing).probe(frozen())
    assert error.value.reason == "vddk-not-installed"
    transport = VddkTransport(site, HostBudget(1, patience=0.05))
    with transport.open(frozen()), pytest.raises(TransportRefused) as error:
        transport.open(frozen())
    assert error.value.reason == "host-has-no-connection-left"


def test_doctor_sees_an_nbdkit_without_the_plugin(site: VddkSettings) -> None:
    assert vddk.probe(site).version
    other = VddkSettings(site.library, site.server, site.user, site.password_file, site.thumbprint, plugin="null")
    with pytest.raises(ConfigurationError):
        vddk.probe(other)
    gone = VddkSettings(
        site.library, site.server, site.user, site.password_file, site.thumbprint, plugin="no-such-plugin"
    )
    with pytest.raises(ConfigurationError, match="nbdkit"):
        vddk.probe(gone)


def test_it_ends_with_whoever_started_it(site: VddkSettings, tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.integration.transport.test_vddk import THUMBPRINT, VddkSettings, VddkTransport, frozen\n"
        f"site = VddkSettings(Path({str(site.library)!r}), 'vc.example', 'backup@vsphere.local',"
        f" Path({str(site.password_file)!r}), lambda: THUMBPRINT)\n"
        "source = VddkTransport(site).open(frozen())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = run([sys.executable, "-c", code], timeout=60, check=False)
    assert killed.code == -9, killed.stderr
    gone = [process.wait(20) for process in nbdkits(tmp_path)]
    assert nbdkits(tmp_path) == [], gone
