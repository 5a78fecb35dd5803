"""A site on libvirt's own test driver: definitions and directories without a daemon, an emulator or a file."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import libvirt
import pytest

from proxy.hypervisor.kvm import KvmHost, define
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.hosts import Hosts
from proxy.hypervisor.kvm.records import Records
from proxy.hypervisor.kvm.release import Releaser
from proxy.hypervisor.kvm.rolling import Rolling
from proxy.hypervisor.kvm.sweep import Sweeper
from proxy.state_directory import StateDirectory

MACHINE = "11111111-2222-4333-8444-555555555555"
OVERLAYS = "/o"
LUN = "iscsi://10.0.0.1/iqn.2026-01.lab:a/1"
SOURCE = "<source protocol='iscsi' name='iqn.2026-01.lab:a/1'><host name='10.0.0.1' port='3260'/></source>"

Nothing = Callable[..., None]


def definition(*overlays: str) -> str:
    """A machine whose disk vda lies on the LUN, below these overlays, top first."""
    disk = f"<disk type='network'><driver name='qemu' type='raw'/>{SOURCE}<target dev='vda'/></disk>"
    head = f"<name>web</name><uuid>{MACHINE}</uuid><memory>1024</memory><os><type>hvm</type></os>"
    text = f"<domain type='test'>{head}<devices>{disk}</devices></domain>"
    for path in reversed(overlays):
        text = define.with_overlay(text, "vda", path)
    return text


class TestedSite:
    """Hosts of libvirt's test driver, each with a directory of overlays, and our parts over them."""

    __test__ = False

    def __init__(
        self, directory: Path, *names: str, overlays: Mapping[str, str] | None = None, silent: Collection[str] = ()
    ) -> None:
        """``overlays``: where a host has its directory, if not in ``OVERLAYS``."""
        settings = []
        for name in names:
            place = (overlays or {}).get(name, OVERLAYS)
            node = directory / f"{name}.xml"
            if name not in silent:
                pool = f"<pool type='dir'><name>o</name><target><path>{place}</path></target></pool>"
                node.write_text(f"<node>{pool}</node>")
            settings.append(KvmHost(name, f"test://{node}", place))
        self.hosts = Hosts(settings)
        self.records = Records(StateDirectory(directory / "state"))
        self.rolls = Rolling(("web",), self.records)

        def nobody_reads(_machine: str) -> "_Open":
            return _Open()

        self.releaser = Releaser(self.hosts, self.records, self.rolls, nobody_reads)
        self.sweeper = Sweeper(self.hosts, self.records, self.rolls, self.releaser)

    def call(self, work: Callable[[libvirt.virConnect], object], host: str = "h1") -> object:
        found = self.hosts.named(host)
        assert found is not None
        return found.call("prepare", work)

    def define(self, *overlays: str, host: str = "h1", runs: bool = False) -> None:
        def work(connection: libvirt.virConnect) -> None:
            machine = connection.defineXML(definition(*overlays))
            if runs and not machine.isActive():
                machine.create()

        self.call(work, host)

    def put(self, path: str, below: str, *, capacity: int = 100, allocation: int = 10, host: str = "h1") -> None:
        """An image of the directory, which rests on ``below``."""
        xml = (
            f"<volume><name>{escape(path.rpartition('/')[2])}</name><capacity>{capacity}</capacity>"
            f"<allocation>{allocation}</allocation><target><format type='qcow2'/></target>"
            f"<backingStore><path>{escape(below)}</path><format type='raw'/></backingStore></volume>"
        )
        self.call(lambda connection: connection.storagePoolLookupByName("o").createXML(xml, 0), host)

    def files(self, host: str = "h1") -> set[str]:
        found = self.hosts.named(host)
        assert found is not None
        directory = Directory(found, found.settings.overlay_directory)
        return {f"{directory.path}/{name}" for name in directory.names()}


class _Open:
    """An interlock that nobody holds."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def tested_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TestedSite]]:
    """Makes sites. The test driver knows no keepalive, for it has no connection that could break."""
    monkeypatch.setattr(libvirt.virConnect, "setKeepAlive", lambda *_: 0)
    made: list[TestedSite] = []

    def make(*names: str, overlays: Mapping[str, str] | None = None, silent: Collection[str] = ()) -> TestedSite:
        made.append(TestedSite(tmp_path, *(names or ("h1",)), overlays=overlays, silent=silent))
        return made[-1]

    yield make
    for site in made:
        site.hosts.close()
