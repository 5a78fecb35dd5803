"""Files of a restore point go back into the running machine by the product's own command."""

from typing import Any

import pytest

from appliance.lab.lab import Lab
from catalog.unit_of_work import Catalog

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-system-x86_64", "nbdkit")]

MACHINE = "raw-lun"
ATTENTION = 7


def in_guest(lab: Lab, script: str) -> str:
    _, said = lab.guest_run(MACHINE, ["/bin/sh", "-c", script])
    return said.decode()


def test_lost_and_changed_files_come_back_and_nothing_is_replaced_unasked(lab: Lab, product: Any) -> None:
    in_guest(
        lab,
        "mkdir -p /srv/app && printf good > /srv/app/lost && printf good > /srv/app/changed && ln -s lost /srv/app/l",
    )
    in_guest(lab, "chown 1000:1000 /srv/app/lost && chmod 640 /srv/app/lost && sync")
    point = product.good("backup", MACHINE)[0]["point"]["id"]
    in_guest(lab, "rm /srv/app/lost && sleep 1 && printf bad > /srv/app/changed")

    code, told, said = product.run("files", "push", point, "/srv/app", "--to", f"{MACHINE}:/srv")
    assert code == ATTENTION, said
    assert told["report"]["failed"] == 1
    assert "changed" in told["report"]["problems"][0]["path"]
    assert (
        in_guest(lab, "cat /srv/app/lost /srv/app/changed; stat -c '%a %u:%g' /srv/app/lost")
        == "goodbad640 1000:1000\n"
    )

    told = product.good("files", "push", point, "/srv/app", "--to", f"{MACHINE}:/srv", "--overwrite")
    assert told["report"]["entries"]["unchanged"] == 1
    assert in_guest(lab, "cat /srv/app/changed; readlink /srv/app/l; ls -A /srv") == "goodlost\napp\n"

    with Catalog(f"sqlite:///{lab.directory / 'state' / 'catalog.db'}") as catalog:
        pushes = [entry for entry in catalog.audit.list() if entry.action == "push"]
    assert [entry.point for entry in pushes] == [point, point]


def test_a_machine_that_is_off_is_told_before_the_restore_point_is_opened(lab: Lab, product: Any) -> None:
    point = product.good("backup", "powered-off")[0]["point"]["id"]
    code, told, _ = product.run("files", "push", point, "/etc", "--to", "powered-off:/srv")
    assert code == 4
    assert told["error"]["code"] == "guest-agent-unavailable"
    assert "off" in told["error"]["message"]


def test_the_destination_must_name_machine_and_directory(product: Any) -> None:
    code, _, said = product.run("files", "push", "x", "/etc", "--to", "raw-lun")
    assert code == 2
    assert "MACHINE:DIRECTORY" in said
