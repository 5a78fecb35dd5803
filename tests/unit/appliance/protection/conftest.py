"""An appliance with something of everything that it has to protect, and the means to lose it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance import config, storage
from appliance.wiring import Services
from catalog.jobs.policy import Policy
from mounter.keys import Key
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

# None of these may be seen anywhere but in the files that hold them, and in what is sealed.
PASSWORD = b"correct horse battery staple"
CHAP = b"chap-secret-0815"
TOKEN = b"token-4711-of-the-witness"
VOLUME = b"volume-passphrase-90210"
SECRETS = (PASSWORD, CHAP, TOKEN, VOLUME)

CONFIGURATION = """\
# written by a person: comments stay
[repository]
path = "{base}/repo"
key_file = "{base}/etc/repository.key"

[[copy_to]]
name = "vault"
path = "{base}/vault"
key_file = "{base}/etc/vault.key"

[state]
directory = "{base}/state"

[[host]]
name = "kvm1"
uri = "qemu+ssh://root@kvm1/system"
tls_directory = "{base}/etc/pki"

[[vcenter]]
name = "lab"
host = "vc.example"
user = "backup"
password_file = "{base}/etc/vc.password"
ca_bundle = "{base}/etc/vc.pem"

[[san.target]]
iqn = "iqn.2026-01.example.san:hosts"
portals = ["10.0.0.1:3260"]
chap_user = "proxy"
chap_secret_file = "{base}/etc/chap"

[[witness]]
url = "https://witness.example/"
token_file = "{base}/etc/token"
"""


class Site:
    """Everything of one appliance below ``base``."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "etc" / "lanfree.toml"
        self.number = 0

    def make(self) -> None:
        pki = self.base / "etc" / "pki"
        pki.mkdir(parents=True)
        self.path.write_text(CONFIGURATION.format(base=self.base))
        files = {"vc.password": PASSWORD, "chap": CHAP, "token": TOKEN, "vc.pem": b"-- CERTIFICATE --\n"}
        for name, data in {**files, "pki/clientcert.pem": b"-- CLIENT --\n"}.items():
            (self.base / "etc" / name).write_bytes(data + b"\n")
            (self.base / "etc" / name).chmod(0o600)

    def services(self) -> Services:
        return Services(config.load(self.path))

    def write(self, text: str) -> None:
        """Another configuration; ``{base}`` is filled in."""
        self.path.write_text(text.format(base=self.base))

    def etc(self) -> dict[str, bytes]:
        """Every file of the configuration, by its place in it."""
        folder = self.base / "etc"
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

    def lose(self, *but: str) -> None:
        """Configuration and state are gone, of the files in etc all but these."""
        for path in sorted((self.base / "etc").rglob("*")):
            if path.is_file() and path.name not in but:
                path.unlink()
        shutil.rmtree(self.base / "state")

    def machine_point(self, repository: Repository, minutes: int = 0) -> RestorePoint:
        """A restore point of an ordinary machine."""
        self.number += 1
        with repository.image_writer("vda", 65536, None) as writer:
            writer.write(0, memoryview(bytes([self.number]) * 65536))
            image = writer.seal()
        return repository.seal(
            RestorePoint(
                id="",
                machine="m1",
                machine_name="web",
                host="kvm1",
                run=f"r{self.number}",
                created_at=NOON + timedelta(minutes=minutes),
                level=Level.FULL,
                consistency=Consistency.CRASH,
                images=(image,),
                configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
            )
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An appliance with a job, an indexed restore point, a kept key of a volume, and entries in its audit log."""
    made = Site(tmp_path / "site")
    made.make()
    with made.services() as services:
        assert services.make_repository()
        assert storage.made(services.settings.copy_to[0], tmp_path / "cache", services.clock)
        point = made.machine_point(services.repository)
        with services.catalog.transaction() as unit:
            unit.restore_points.add(point)
        with services.jobs.transaction() as unit:
            unit.jobs.add("nightly", Policy(description="all of it"), NOON)
        services.unlock.add("m1", Key("/dev/sda3", VOLUME), NOON)
        services.shared.put("vsphere/installation", b"0123456789abcdef0123456789abcdef")
        services.catalog.audit.record("root@proxy", "browse", "m1", point.id)
    return made


@pytest.fixture
def services(site: Site) -> Iterator[Services]:
    with site.services() as opened:
        yield opened


def holds_none_of(secrets: tuple[bytes, ...], *places: Path) -> bool:
    """Whether no file below these has any of them in its bytes."""
    files: list[Any] = [file for place in places for file in place.rglob("*") if file.is_file()]
    assert files
    return not any(secret in file.read_bytes() for file in files for secret in secrets)
