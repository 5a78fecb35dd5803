"""The way into guests as the appliance is configured: a vCenter's machine, as one of the guest's own users."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import operations
from appliance.config import parse
from appliance.guest import GuestLogin, guest_files
from appliance.wiring import Services
from proxy.errors import ConfigurationError
from proxy.guest_files import MakeDirectory, Outcome
from proxy.units import MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go")]

CONFIG = """
[repository]
path = "{home}/repository"
unencrypted = true
[state]
directory = "{home}/state"
[[vcenter]]
name = "vc1"
host = "{host}"
port = {port}
user = "{user}"
password_file = "{password}"
thumbprint = "{digest}"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("vc") / "lab", (LabMachine("web", (LabDisk(size=8 * MiB),)),)) as made:
        yield made


@pytest.fixture
def services(lab: VcsimLab, tmp_path: Path) -> Iterator[Services]:
    text = CONFIG.format(
        home=tmp_path, host=lab.host, port=lab.port, user=lab.user, password=lab.password_file, digest=lab.thumbprint
    )
    with Services(parse(text, tmp_path / "lanfree.toml")) as made:
        yield made


def test_files_go_into_a_vcenters_machine_as_a_user_of_the_guest(
    services: Services, lab: VcsimLab, tmp_path: Path
) -> None:
    password = tmp_path / "guest-password"
    password.write_text("Guest-1\n")
    password.chmod(0o600)
    machine = operations.machine_named(services, "web")
    with guest_files(services, machine, b"/srv", GuestLogin("root", password)) as files:
        assert files.machine == machine.id
        assert files.apply([MakeDirectory(b"/srv/d")]) == [Outcome()]
    assert (lab.state / "guests/web/srv/d").is_dir()


def test_without_a_user_of_the_guest_nobody_is_let_in(services: Services) -> None:
    machine = operations.machine_named(services, "web")
    with pytest.raises(ConfigurationError) as told:
        guest_files(services, machine, b"/srv", None)
    assert "--guest-user" in told.value.hint
