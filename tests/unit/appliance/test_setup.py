"""The set-up script's decisions, run for real against stand-ins for the system's programs in a directory of the test."""

import os
import subprocess
from pathlib import Path

import pytest

from appliance import doctor

# The set-up as a whole, once for each state of a machine.
pytestmark = pytest.mark.slow

SETUP = Path(doctor.__file__).parent / "setup"
DISTRIBUTIONS = sorted(path.stem for path in (SETUP / "packages").glob("*.txt"))
GROUPS = ("runtime", "build", "lab", "kernel")

# dpkg-query as the script calls it: knows the packages that are named in $INSTALLED, one a line.
DPKG_QUERY = """#!/bin/sh
shift 3
for name in "$@"; do grep -qx "$name" "$INSTALLED" && echo "installed $name" || bad=1; done
exit ${bad:-0}
"""

# apt-get: notes its words; "install" makes the packages installed, unless $BROKEN lists fewer tries than were made.
APT_GET = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do [ "$1" = -o ] && shift; shift; done
echo "$*" >> "$NOTES"
[ "$1" = install ] || exit 0
tries=$(grep -c ^install "$NOTES")
[ "$tries" -gt "${FAILURES:-0}" ] || exit 100
for name in "$@"; do echo "$name" >> "$INSTALLED"; done
"""


class Machine:
    """A made-up machine: its os-release, what is installed, who runs the script, and what apt-get was asked for."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.bin = directory / "bin"
        self.installed = directory / "installed"
        self.notes = directory / "notes"
        self.os_release = directory / "os-release"
        for path in (self.root / "usr" / "sbin", self.root / "var" / "lib" / "apt" / "lists", self.bin):
            path.mkdir(parents=True)
        for file in (self.installed, self.notes):
            file.touch()
        self.program("dpkg-query", DPKG_QUERY)
        self.program("apt-get", APT_GET)
        self.program("sleep", "#!/bin/sh\n")
        self.program("systemctl", '#!/bin/sh\necho "systemctl $*" >> "$NOTES"\n')
        self.user(0)
        self.distribution("debian-12")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def user(self, number: int) -> None:
        self.program("id", f"#!/bin/sh\necho {number}\n")

    def distribution(self, name: str) -> None:
        identity, _, version = name.partition("-")
        self.os_release.write_text(f'PRETTY_NAME="Some {name}"\nID={identity}\nVERSION_ID="{version}"\n')

    def fresh_lists(self) -> None:
        (self.root / "var" / "lib" / "apt" / "lists" / "mirror_main_Packages").touch()

    def kernel(self) -> None:
        (self.root / "boot").mkdir()
        (self.root / "boot" / "vmlinuz-6.1.0-1-amd64").touch()
        (self.root / "lib" / "modules" / "6.1.0-1-amd64").mkdir(parents=True)

    def install(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "INSTALLED": str(self.installed),
            "NOTES": str(self.notes),
            "LANFREE_ROOT": str(self.root),
            "LANFREE_OS_RELEASE": str(self.os_release),
            **more,
        }
        return subprocess.run(
            [SETUP / "install.sh", *words], env=environment, text=True, capture_output=True, timeout=30, check=False
        )

    def apt_calls(self) -> list[str]:
        return [line.split()[0] for line in self.notes.read_text().splitlines() if not line.startswith("systemctl")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("group", GROUPS)
def test_every_distribution_has_every_group(machine: Machine, distribution: str, group: str) -> None:
    machine.distribution(distribution)
    done = machine.install("--list", group)
    assert done.returncode == 0
    assert done.stdout.split()


def test_there_are_lists_for_the_three_distributions() -> None:
    assert DISTRIBUTIONS == ["debian-12", "debian-13", "ubuntu-24.04"]


def test_no_package_stands_in_two_groups(machine: Machine) -> None:
    everything = machine.install("--list").stdout.split()
    assert len(everything) == len(set(everything))


def test_nothing_is_done_when_everything_is_installed(machine: Machine) -> None:
    machine.installed.write_text(machine.install("--list").stdout)
    machine.user(1000)
    done = machine.install()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.apt_calls() == []


def test_what_is_missing_is_installed_and_nothing_else(machine: Machine) -> None:
    everything = machine.install("--list").stdout.split()
    machine.installed.write_text("\n".join(name for name in everything if name not in {"tgt", "nbdkit"}) + "\n")
    machine.fresh_lists()
    assert machine.install().returncode == 0
    assert machine.notes.read_text().splitlines()[0] == "install -y --no-install-recommends nbdkit tgt"
    assert machine.install("--missing").returncode == 0


def test_package_lists_are_fetched_only_when_they_are_old(machine: Machine) -> None:
    machine.install("build")
    assert machine.apt_calls() == ["update", "install"]
    machine.installed.write_text("")
    machine.notes.write_text("")
    machine.fresh_lists()
    machine.install("build")
    assert machine.apt_calls() == ["install"]


def test_a_lost_connection_is_tried_once_more_with_new_lists(machine: Machine) -> None:
    machine.fresh_lists()
    assert machine.install("build", FAILURES="1").returncode == 0
    assert machine.apt_calls() == ["install", "update", "install"]


def test_a_second_failure_is_final(machine: Machine) -> None:
    machine.fresh_lists()
    done = machine.install("build", FAILURES="2")
    assert done.returncode == 1
    assert "check the network and the package sources" in done.stderr
    assert machine.apt_calls() == ["install", "update", "install"]


def test_without_root_the_exact_command_is_told(machine: Machine) -> None:
    machine.user(1000)
    done = machine.install("build")
    assert done.returncode == 1
    assert "libiscsi-dev" in done.stderr
    assert f"sudo {SETUP}/install.sh build" in done.stderr
    assert machine.apt_calls() == []


def test_another_distribution_gets_the_list_to_install_by_hand(machine: Machine) -> None:
    machine.distribution("plan9-4")
    done = machine.install()
    assert done.returncode == 3
    assert "no package list for 'plan9-4'" in done.stderr
    assert "python3-guestfs" in done.stderr
    assert "LANFREE_SKIP_PACKAGES=1" in done.stderr


def test_a_system_set_up_by_hand_is_left_alone(machine: Machine) -> None:
    machine.distribution("plan9-4")
    assert machine.install(LANFREE_SKIP_PACKAGES="1").returncode == 0
    assert machine.apt_calls() == []


def test_no_kernel_is_installed_beside_one_that_serves(machine: Machine) -> None:
    assert "linux-image-cloud-amd64" in machine.install("--missing").stdout
    machine.kernel()
    assert "linux-image" not in machine.install("--missing").stdout


def test_system_daemons_are_held_back_while_packages_are_installed(machine: Machine) -> None:
    policy = machine.root / "usr" / "sbin" / "policy-rc.d"
    kept = machine.root / "kept"
    machine.program("apt-get", APT_GET + f'cp "{policy}" "{kept}"\n')
    machine.install("lab")
    assert not policy.exists()

    def allowed(daemon: str) -> bool:
        return subprocess.run(["sh", kept, daemon, "start"], check=False).returncode == 0

    assert not any(map(allowed, ["tgt", "tgt.service", "libvirtd", "libvirtd.socket", "virtlogd", "libvirt-guests"]))
    assert all(map(allowed, ["ssh", "dbus", "systemd-udevd"]))
    disabled = machine.notes.read_text()
    assert "systemctl -q disable tgt.service" in disabled
    assert "systemctl -q disable libvirtd.socket" in disabled


def test_a_policy_of_the_machine_is_kept(machine: Machine) -> None:
    policy = machine.root / "usr" / "sbin" / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    machine.install("lab")
    assert policy.read_text() == "#!/bin/sh\nexit 101\n"


def test_daemons_that_were_there_before_stay_as_they_are(machine: Machine) -> None:
    everything = machine.install("--list").stdout.split()
    machine.installed.write_text("\n".join(name for name in everything if name != "cpio") + "\n")
    machine.install()
    assert "systemctl" not in machine.notes.read_text()


def test_a_wrong_word_is_answered_with_the_usage(machine: Machine) -> None:
    done = machine.install("--lst")
    assert done.returncode == 2
    assert "install.sh --list" in done.stderr
