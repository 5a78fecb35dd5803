"""Which fabrics a proxy reaches, against a real array: reached by a login, refused with its reason, silent when it is gone."""

from pathlib import Path

import pytest

from appliance.config import parse
from appliance.reach import FRESH_SECONDS, Reach, reaches
from appliance.selecting import facts_of
from appliance.wiring import Services, san_target
from proxy.model import DeviceAddress, Disk, Format, LunAddress, PowerState, VirtualMachine
from tests.integration.transport.tgt_array import BACKUP, HOSTS, INITIATOR, SECRET, USER, Array

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]


def services(home: Path, array: Array, secret: str = SECRET) -> Services:
    file = home / "secret"
    file.write_text(f"{secret}\n")
    portals = ", ".join(f'"{portal}"' for portal in array.portals)
    text = f"""
[repository]
path = "{home}/repository"
unencrypted = true
[state]
directory = "{home}/state"
[[san.target]]
iqn = "{BACKUP}"
portals = [{portals}]
initiator = "{INITIATOR}"
chap_user = "{USER}"
chap_secret_file = "{file}"
presents = ["{HOSTS}"]
"""
    return Services(parse(text, home / "lanfree.toml"))


def test_a_target_that_takes_the_login_is_reached_and_its_luns_are_known_by_name(served: Array, tmp_path: Path) -> None:
    with services(tmp_path, served) as made:
        assert reaches(made) == {BACKUP}
        (unit,) = made.fabric.units(san_target(made.settings.san.target[0])).values()
        places = [LunAddress(HOSTS, 1), DeviceAddress("/dev/sdb", next(iter(unit.names), None))]
        for place in places[: 1 + bool(unit.names)]:
            disks = (Disk("vda", 1, Format.RAW, place),)
            machine = VirtualMachine("i", "m", "kvm1", PowerState.RUNNING, disks)
            assert facts_of(made).of(machine).paths == {BACKUP}


def test_a_wrong_secret_is_told_and_is_no_way_to_read(served: Array, tmp_path: Path) -> None:
    with services(tmp_path, served, "not-the-secret-of-it") as made:
        assert reaches(made) == frozenset()
        (path,) = made.reach.paths()
        assert path.why
        assert "not-the-secret-of-it" not in path.why


def test_an_array_that_goes_is_silent_within_a_minute(served: Array, tmp_path: Path) -> None:
    now = [1000.0]
    with services(tmp_path, served) as made:
        target = made.settings.san.target[0]
        reach = Reach([target], (), lambda one: made.fabric.units(san_target(one)), lambda: now[0])
        assert [path.reached for path in reach.paths()] == [True]
        served.stop()
        now[0] += FRESH_SECONDS
        (path,) = reach.paths()
        assert not path.reached
        assert served.portals[0] in path.why
