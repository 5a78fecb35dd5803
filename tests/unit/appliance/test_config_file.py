"""The configuration file changed by the program."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from appliance import config
from appliance.config import Host, Vcenter
from appliance.config_file import PREVIOUS, ConfigurationChanged, ConfigurationFile, Watched, store_secret
from proxy.errors import ConfigurationError

TEXT = """\
# written by a person
[repository]
unencrypted = true  # for the test

[[host]]
name = "kvm1"  # the old one
uri = "qemu:///system"

[limits]
per_host = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    path = tmp_path / "lanfree.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return ConfigurationFile(path)


def test_a_hypervisor_is_added_and_all_that_a_person_wrote_stays(file: ConfigurationFile) -> None:
    settings = file.add(Host(name="kvm2", uri="qemu+ssh://root@kvm2/system", overlay_reserve=1024))
    assert [host.name for host in settings.host] == ["kvm1", "kvm2"]
    assert settings == config.load(file.path)
    text = file.path.read_text()
    assert "# written by a person" in text
    assert "# the old one" in text
    assert "overlay_reserve = 1024" in text


def test_the_file_keeps_its_mode_and_the_one_before_stays_beside_it(file: ConfigurationFile) -> None:
    file.add(Host(name="kvm2", uri="qemu:///session"))
    before = file.path.with_name(file.path.name + PREVIOUS)
    assert before.read_text() == TEXT
    assert {stat.S_IMODE(each.stat().st_mode) for each in (file.path, before)} == {0o640}
    assert sorted(each.name for each in file.path.parent.iterdir()) == ["lanfree.toml", "lanfree.toml.previous"]


def test_a_link_stays_a_link(file: ConfigurationFile, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere.toml"
    link.symlink_to(file.path)
    ConfigurationFile(link).add(Host(name="kvm2", uri="qemu:///session"))
    assert link.is_symlink()
    assert "kvm2" in file.path.read_text()


def test_what_a_killed_process_left_does_not_stand_in_the_way(file: ConfigurationFile) -> None:
    file.path.with_name("lanfree.toml.new").write_text("half of")
    file.add(Host(name="kvm2", uri="qemu:///session"))
    assert [host.name for host in config.load(file.path).host] == ["kvm1", "kvm2"]


def test_a_name_is_taken_once_whatever_kind_has_it(file: ConfigurationFile) -> None:
    with pytest.raises(ConfigurationError, match="kvm1 already"):
        file.add(Vcenter(name="kvm1", host="vc", user="u", password_file=Path("/p"), thumbprint="AA"))
    assert file.path.read_text() == TEXT


def test_a_hypervisor_is_removed_and_the_rest_stays(file: ConfigurationFile) -> None:
    file.add(Host(name="kvm2", uri="qemu:///session"))
    assert [host.name for host in file.remove("kvm1").host] == ["kvm2"]
    assert "# written by a person" in file.path.read_text()
    assert file.remove("kvm2").host == ()
    assert "[[host]]" not in file.path.read_text()
    with pytest.raises(ConfigurationError, match="no hypervisor kvm2"):
        file.remove("kvm2")


def test_values_are_changed_added_and_taken_away(file: ConfigurationFile) -> None:
    settings = file.change(
        {
            ("limits", "per_host"): None,
            ("limits", "keys"): {"host:kvm1": 4},
            ("coverage", "accept"): [{"machine": "db-*", "gap": ["too-old"], "why": "a test"}],
        }
    )
    assert settings.limits.per_host == 2
    assert settings.limits.keys == {"host:kvm1": 4}
    assert settings.coverage.accept[0].machine == "db-*"
    assert "per_host" not in file.path.read_text()


def test_what_would_not_be_valid_is_not_written(file: ConfigurationFile) -> None:
    with pytest.raises(ConfigurationError, match="per_host"):
        file.change({("limits", "per_host"): -1})
    assert file.path.read_text() == TEXT


def test_a_change_of_what_somebody_else_changed_is_refused(file: ConfigurationFile) -> None:
    seen = file.read().digest
    file.change({("limits", "per_place"): 9}, expected=seen)
    with pytest.raises(ConfigurationChanged):
        file.change({("limits", "per_place"): 10}, expected=seen)
    assert config.load(file.path).limits.per_place == 9


def _add_ten(path: Path, name: str) -> None:
    for number in range(10):
        ConfigurationFile(path).add(Host(name=f"{name}-{number}", uri="qemu:///session"))


@pytest.mark.slow
def test_processes_that_change_it_at_once_lose_nothing(file: ConfigurationFile) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_add_ten, args=(file.path, name)) for name in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(config.load(file.path).host) == 21


def test_who_watches_sees_the_first_state_and_each_change_once(file: ConfigurationFile) -> None:
    watched = Watched(file.path)
    assert watched.look() == config.load(file.path)
    assert watched.look() is None
    file.change({("limits", "per_host"): 7})
    found = watched.look()
    assert found is not None
    assert found.limits.per_host == 7
    assert watched.look() is None


def test_who_watches_is_told_why_a_file_cannot_be_taken_and_when_it_can_again(file: ConfigurationFile) -> None:
    watched = Watched(file.path)
    watched.look()
    file.path.write_text(TEXT + "nonsense = ")
    assert watched.look() is None
    assert watched.refused is not None
    file.path.unlink()
    assert watched.look() is None
    assert "no such file" in str(watched.refused)
    file.path.write_text(TEXT)
    assert watched.look() is not None
    assert watched.refused is None


def test_a_secret_is_nobody_elses_from_its_first_byte(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = store_secret(tmp_path, "vcenter-vc1", "hunter2")
        again = store_secret(tmp_path, "vcenter-vc1", "hunter3")
    finally:
        os.umask(before)
    assert place == again
    assert place.read_text() == "hunter3\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(("name", "secret"), [("../x", "s"), ("", "s"), (".x", "s"), ("x", ""), ("x", "two\nlines")])
def test_a_secret_is_one_line_in_a_plain_file(tmp_path: Path, name: str, secret: str) -> None:
    with pytest.raises(ConfigurationError):
        store_secret(tmp_path, name, secret)
