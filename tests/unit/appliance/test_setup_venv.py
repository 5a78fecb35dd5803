"""When the virtual environment is made, made again, or left alone: the script runs for real with a stand-in for Python."""

import os
import subprocess
from pathlib import Path

import pytest

from appliance import doctor

# The set-up as a whole, once for each state of a checkout.
pytestmark = pytest.mark.slow

SCRIPT = Path(doctor.__file__).parent / "setup" / "venv.sh"

# Stands in for /usr/bin/python3 and, copied by its own "-m venv", for the environment's python. Notes what it was asked;
# "pip" fails as long as $FAILURES says.
PYTHON = """#!/bin/sh
case "$*" in
    "-c import sys; print(sys.version)") echo "${FAKE_VERSION:-3.11.2}"; exit 0 ;;
esac
echo "$*" | sed "s|--disable-pip-version-check install -q --retries 5||" >> "$NOTES"
case "$*" in
    "-m venv --system-site-packages "*)
        mkdir -p "$4/bin"
        echo "include-system-site-packages = true" > "$4/pyvenv.cfg"
        cp "$0" "$4/bin/python"
        echo "#!$PWD/$4/bin/python" > "$4/bin/pip"
        ;;
    "-m pip "*)
        [ "$(grep -c 'm pip' "$NOTES")" -gt "${FAILURES:-0}" ] || exit 1
        touch .venv/bin/lanfree; chmod +x .venv/bin/lanfree
        ;;
    "-m proxy.transport.iscsi.build") touch proxy/transport/iscsi/_libiscsi.so ;;
esac
"""

MAKE = "-m venv --system-site-packages .venv"
BACKEND = "-m pip  hatchling setuptools"
PROJECT = "-m pip  --no-build-isolation -e .[dev]"
BINDING = "-m proxy.transport.iscsi.build"
COMPILE = "-m compileall -q proxy mounter catalog api appliance"


class Checkout:
    """A copy of the tree as far as the script looks at it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        self.notes = directory / "notes"
        self.python = directory / "python3"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.script = self.root / "appliance" / "setup" / "venv.sh"
        self.script.parent.mkdir(parents=True)
        self.script.write_text(SCRIPT.read_text())
        self.script.chmod(0o755)
        self.sources = self.root / "proxy" / "transport" / "iscsi"
        self.sources.mkdir(parents=True)
        (self.sources / "build.py").touch()
        (self.script.parent / "packages").mkdir()
        (self.script.parent / "packages" / "debian-12.txt").write_text("[build]\ngcc\n")
        (self.root / "pyproject.toml").write_text("[project]\n")
        sleep = directory / "bin" / "sleep"
        sleep.parent.mkdir()
        sleep.write_text("#!/bin/sh\n")
        sleep.chmod(0o755)
        self.path = f"{sleep.parent}:{os.environ['PATH']}"

    def set_up(self, **more: str) -> tuple[int, list[str]]:
        """Run the script from elsewhere; its exit status and what Python was asked for."""
        self.notes.write_text("")
        environment = {
            **os.environ,
            "PATH": self.path,
            "LANFREE_PYTHON": str(self.python),
            "NOTES": str(self.notes),
            **more,
        }
        done = subprocess.run([self.script], cwd="/", env=environment, capture_output=True, timeout=30, check=False)
        return done.returncode, self.notes.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_set_up_makes_everything_and_the_second_does_nothing(checkout: Checkout) -> None:
    assert checkout.set_up() == (0, [MAKE, BACKEND, PROJECT, BINDING, COMPILE])
    assert checkout.set_up() == (0, [])


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "appliance/setup/packages/debian-12.txt", "proxy/transport/iscsi/build.py"]
)
def test_a_changed_source_of_the_environment_installs_again_into_the_same_one(checkout: Checkout, file: str) -> None:
    checkout.set_up()
    with (checkout.root / file).open("a") as text:
        text.write("# more\n")
    assert checkout.set_up() == (0, [BACKEND, PROJECT, BINDING, COMPILE])


def test_another_python_makes_a_new_environment(checkout: Checkout) -> None:
    checkout.set_up()
    (checkout.root / ".venv" / "mark").touch()
    # The old environment's interpreter still answers with the old version.
    old = checkout.root / ".venv" / "bin" / "python"
    old.write_text("#!/bin/sh\necho 3.11.2\n")
    assert checkout.set_up(FAKE_VERSION="3.13.5")[1][0] == MAKE
    assert not (checkout.root / ".venv" / "mark").exists()


def test_an_environment_without_the_systems_packages_is_made_anew(checkout: Checkout) -> None:
    checkout.set_up()
    (checkout.root / ".venv" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    (checkout.root / "pyproject.toml").write_text("[project]\n# changed\n")
    assert checkout.set_up()[1][0] == MAKE


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.set_up()
    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)
    checkout.script = moved / "appliance" / "setup" / "venv.sh"
    assert checkout.set_up()[1][0] == MAKE


def test_a_removed_binding_is_compiled_again(checkout: Checkout) -> None:
    checkout.set_up()
    (checkout.sources / "_libiscsi.so").unlink()
    assert BINDING in checkout.set_up()[1]
    assert (checkout.sources / "_libiscsi.so").exists()


def test_a_lost_connection_is_tried_once_more(checkout: Checkout) -> None:
    assert checkout.set_up(FAILURES="1") == (0, [MAKE, BACKEND, BACKEND, PROJECT, BINDING, COMPILE])


def test_a_set_up_that_failed_is_not_taken_for_done(checkout: Checkout) -> None:
    assert checkout.set_up(FAILURES="9")[0] != 0
    assert checkout.set_up() == (0, [BACKEND, PROJECT, BINDING, COMPILE])
