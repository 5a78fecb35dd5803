"""What the form of a whole-machine restore asks of vSphere machines alone, and what that means."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from api.schemas.machines import Machine, Protection
from api.schemas.restores import (
    DatastorePlace,
    Occupant,
    PathPlace,
    RestoreTargets,
    TargetDatastore,
    TargetDirectory,
    TargetHost,
    TargetLun,
)
from api.ui.pages.restore_disks import ELSEWHERE, LEFT_OUT
from api.ui.pages.restore_plan import form, plan_of, wrong_with
from api.ui.pages.restore_vsphere import NoPlanError, one_of, site_of
from api.ui.parts.advice import advice
from api.ui.parts.part import Act
from tests.unit.api.ui.shown_points import MOMENT, image, point

POINT = point(
    *(image(key, f"nfc:{key}", "lan") for key in ("scsi0:0", "scsi0:1")),
    host="esx1",
    hypervisor="vc-old",
    configuration="vsphere-json",
)

KVM = POINT.model_copy(update={"configuration": "libvirt-xml"})

ITSELF = Occupant.model_validate(
    {"machine": {"id": "id-db", "name": "db-07"}, "disk": "scsi0:0", "state": "off", "host": "esx1", "same": False}
)

TARGETS = RestoreTargets(
    hosts=(
        TargetHost(name="kvm1", hypervisor="kvm1", kind="kvm"),
        TargetHost(name="esx1", hypervisor="vc-a", kind="vsphere"),
    ),
    luns=(TargetLun(target="iqn.x:a", lun=1), TargetLun(target="iqn.x:a", lun=2, occupants=(ITSELF,))),
    datastores=(
        TargetDatastore(name="full", hypervisor="vc-a", free=1, hosts=("esx1",)),
        TargetDatastore(name="far", hypervisor="vc-a", free=1 << 40, hosts=("esx2",)),
        TargetDatastore(name="near", hypervisor="vc-a", free=1 << 40, hosts=("esx1",)),
    ),
    directories=(TargetDirectory(path="/disks", free=1 << 40),),
    networks=("Isolated", "VM Network"),
)

STORE = '["datastore", "near"]'


def said(**values: str) -> Act:
    form = {"place_0": STORE, "place_1": LEFT_OUT, **values, "as": values.get("as_", "new")}
    return Act("preview", form={name.replace("_", "-"): (value,) for name, value in form.items()})


def fields(drawn: str) -> set[str]:
    return set(re.findall(r'<(?:input|textarea|select)[^>]* name="([a-z]+)"', drawn))


def test_only_a_machine_of_vsphere_is_asked_where_in_vcenter_it_goes() -> None:
    own = {"folder", "pool", "networks", "attach"}
    assert own <= fields(form(POINT, TARGETS))
    assert not own & fields(form(KVM, TARGETS))
    assert "4. How" in form(POINT, TARGETS)
    assert "3. How" in form(KVM, TARGETS)


def test_a_form_has_the_hosts_and_datastores_of_its_own_hypervisor() -> None:
    vsphere, kvm = str(form(POINT, TARGETS)), str(form(KVM, TARGETS))
    assert ('value="esx1"' in vsphere, 'value="kvm1"' in vsphere, "Datastore near" in vsphere) == (True, False, True)
    assert ('value="esx1"' in kvm, 'value="kvm1"' in kvm, "Datastore" in kvm) == (False, True, False)


def test_a_restore_point_of_which_nobody_knows_the_hypervisor_is_offered_all_places() -> None:
    drawn = str(form(POINT.model_copy(update={"configuration": ""}), TARGETS))
    assert all(word in drawn for word in ('value="esx1"', 'value="kvm1"', "Datastore near"))


def test_the_vcenter_is_its_own_else_the_only_one() -> None:
    two = TARGETS.model_copy(
        update={"hosts": (*TARGETS.hosts, TargetHost(name="e", hypervisor="vc-b", kind="vsphere"))}
    )
    assert site_of(POINT, TARGETS) == "vc-a"
    assert site_of(POINT, two) == ""
    assert site_of(POINT.model_copy(update={"hypervisor": "vc-b"}), two) == "vc-b"


def test_a_disk_begins_in_a_datastore_of_its_host_that_has_room_and_never_on_a_lun() -> None:
    drawn = str(form(POINT, TARGETS))
    selected = re.findall(r"<option[^>]* selected[^>]*>([^<]*)", drawn)
    assert [words.split(",")[0] for words in selected] == ["Datastore near (vc-a)"] * 2
    assert "data-own" not in drawn, "the LUN of a datastore is no machine's own place"


def test_what_is_left_empty_is_as_it_was() -> None:
    plan = plan_of(POINT, said(folder=" ", pool="", networks="\n"))
    assert (plan.folder, plan.pool, plan.networks, plan.attach) == ("", "", {}, None)
    assert plan.disks == {"scsi0:0": DatastorePlace(datastore="near")}


def test_folder_pool_and_networks_are_in_the_plan() -> None:
    lines = "VM Network = Isolated\n\n  DMZ=A = B "
    plan = plan_of(POINT, said(folder=" /DC/vm/Prod ", pool="/DC/host/C/Resources/P", networks=lines))
    assert (plan.folder, plan.pool) == ("/DC/vm/Prod", "/DC/host/C/Resources/P")
    assert plan.networks == {"VM Network": "Isolated", "DMZ": "A = B"}


def test_of_a_kvm_machine_nothing_of_vsphere_is_in_the_plan() -> None:
    plan = plan_of(KVM, said(folder="/DC/vm/Prod", networks="a = b", attach="web", place_0=ELSEWHERE, file_0="/x"))
    assert (plan.folder, plan.networks, plan.attach) == ("", {}, None)


@pytest.mark.parametrize("line", ["Isolated", "= Isolated", "VM Network ="])
def test_a_network_without_another_one_is_named(line: str) -> None:
    with pytest.raises(NoPlanError) as refused:
        plan_of(POINT, said(networks=f"a = b\n{line}"))
    assert wrong_with(refused.value) == [f"Other networks: “{line}” is not of the form “saved = new”."]


def test_a_network_that_is_named_twice_is_no_plan() -> None:
    with pytest.raises(NoPlanError, match="“a” is named twice"):
        plan_of(POINT, said(networks="a = b\na = c"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"folder": "/DC\x00"}, "Folder: at most 4,096 characters, in one line."),
        ({"pool": "p" * 4097}, "Resource pool: at most 4,096 characters, in one line."),
        ({"networks": f"a = {'b' * 501}"}, "Other networks: at most 256, each name of at most 500 characters."),
    ],
)
def test_what_the_api_would_refuse_is_said_in_words_of_the_form(more: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        plan_of(POINT, said(**more))
    assert wrong_with(refused.value) == [words]


@pytest.mark.parametrize("place", ['["lun", "iqn.x:a", "1"]', ELSEWHERE])
@pytest.mark.parametrize(("kind", "instead"), [("new", "Only its disks"), ("itself", "Only its disks"), ("attach", "")])
def test_what_vsphere_makes_goes_to_a_datastore(kind: str, instead: str, place: str) -> None:
    with pytest.raises(NoPlanError) as refused:
        plan_of(POINT, said(as_=kind, place_0=place, file_0="/disks/x", attach="web"))
    (words,) = wrong_with(refused.value)
    assert words.startswith("scsi0:0: vSphere makes it in a datastore")
    assert instead in words


def test_disks_alone_go_to_files_and_luns_and_a_kvm_machine_does_as_well() -> None:
    for shown, kind in ((POINT, "disks"), (KVM, "new")):
        plan = plan_of(shown, said(as_=kind, place_0=ELSEWHERE, file_0="/disks/x"))
        assert plan.disks == {"scsi0:0": PathPlace(path="/disks/x")}


def test_a_disk_is_given_to_a_machine_and_nothing_else_is_said_of_one() -> None:
    plan = plan_of(POINT, said(as_="attach", attach=" web-07 ", folder="/DC/vm/Prod", host="esx1", name="again"))
    assert plan.attach == "web-07"
    assert (plan.folder, plan.host, plan.name, plan.disks_only) == ("", "", None, False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attach": " "}, "Say which machine is given the disk."),
        ({"attach": "web", "place_1": STORE}, "One disk at a time is given to a machine: leave the others out."),
        ({"attach": "web", "place_0": LEFT_OUT}, "One disk at a time is given to a machine: leave the others out."),
    ],
)
def test_one_disk_is_given_to_one_machine(more: dict[str, str], words: str) -> None:
    with pytest.raises(NoPlanError) as refused:
        plan_of(POINT, said(as_="attach", **more))
    assert wrong_with(refused.value) == [words]


def machine(id_: str, name: str, **more: Any) -> Machine:
    return Machine(id=id_, name=name, host="esx1", hypervisor="vc-a", protection=Protection.NEVER, **more)


def test_a_machine_is_meant_by_its_name_or_its_identity() -> None:
    there = [machine("1", "web"), machine("2", "Web-1"), machine("3", "twin"), machine("4", "twin")]
    gone = machine("5", "web", gone_at=MOMENT)
    assert one_of([*there, gone], "WEB-1").id == "2"
    assert one_of([*there, gone], "web").id == "1"
    assert one_of(there, "4").id == "4"
    with pytest.raises(NoPlanError, match="2 machines are called “twin”"):
        one_of(there, "twin")
    with pytest.raises(NoPlanError, match="There is no machine “we”"):
        one_of(there, "we")


def test_the_help_names_the_networks_that_there_are_but_not_hundreds() -> None:
    assert "There are Isolated, VM Network." in form(POINT, TARGETS)
    many = TARGETS.model_copy(update={"networks": tuple(f"n{number:03}" for number in range(300))})
    drawn = form(POINT, many)
    assert "n011 and 288 more." in drawn
    assert "n012" not in drawn


def test_a_missing_network_is_told_in_words_of_the_form() -> None:
    hint = "name another one for it: --network 'VM Network=NAME'; there are Isolated"
    assert "“Other networks”" in advice("restore-refused", hint)
