"""Which machines a job means, and where they are. Nothing connects: sites live in memory."""

from pathlib import Path

import pytest

from appliance.config import San, Target, parse
from appliance.selecting import Facts, Sight, check, facts_of, look
from appliance.wiring import Services, san_target
from catalog.jobs.policy import Selection
from proxy.errors import ConfigurationError, HostUnreachable, HypervisorError
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.machine_rules import Candidate
from proxy.model import (
    DeviceAddress,
    Disk,
    FileAddress,
    Format,
    Location,
    LunAddress,
    PowerState,
    Reason,
    ReasonCode,
    VirtualMachine,
    VmdkAddress,
)
from proxy.transport.iscsi import Identity
from proxy.transport.san import SanFabric


def machine(name: str, *places: Location, host: str = "kvm1") -> VirtualMachine:
    disks = tuple(Disk(f"vd{'abcdef'[n]}", 4096, Format.RAW, place) for n, place in enumerate(places))
    return VirtualMachine(f"id-{name}", name, host, PowerState.RUNNING, disks)


HERE = FileAddress("/srv/vm/x.img")
SIGHT = Sight(
    (
        Candidate(machine("db1", HERE, HERE, HERE)),
        Candidate(machine("web1", HERE), folder="/DC0/vm/Prod", tags=("backup:gold",), site="vc1"),
        Candidate(machine("web2", HERE), folder="/DC0/vm/Prod", tags=("backup:none",), site="vc1"),
        Candidate(machine("vCLS-1", HERE), managed_by="com.vmware.vim.eam", site="vc1"),
    )
)


def names(selection: Selection, sight: Sight = SIGHT) -> list[tuple[str, str]]:
    return [(chosen.machine.name, chosen.rule) for chosen in sight.choose(selection).machines]


def test_each_chosen_machine_says_by_which_rule() -> None:
    assert names(Selection(include=("folder=Prod", "name=db*"))) == [
        ("db1", "name=db*"),
        ("web1", "folder=Prod"),
        ("web2", "folder=Prod"),
    ]
    assert names(Selection(include=("",))) == [("db1", ""), ("web1", ""), ("web2", "")]
    assert names(Selection()) == []


def test_an_excluded_machine_says_by_which_rule_it_is_out() -> None:
    selected = SIGHT.choose(Selection(include=("",), exclude=("tag=none", "name=d*")))
    assert [chosen.machine.name for chosen in selected.machines] == ["web1"]
    assert [(one.machine.name, one.rule) for one in selected.excluded] == [("db1", "name=d*"), ("web2", "tag=none")]
    assert selected.idle == ()


def test_a_rule_that_fits_nothing_is_told_with_the_reason() -> None:
    plain = Sight((Candidate(machine("db1", HERE)),))
    selected = plain.choose(Selection(include=("name=db*", "folder=Prod"), exclude=("name=old*",)))
    assert selected.idle == (
        "no machine fits 'folder=Prod': only machines of vCenters have a folder",
        "no machine fits 'name=old*'",
    )
    silent = Sight(SIGHT.candidates, {"kvm9": "no route"})
    assert silent.choose(Selection(include=("name=x",))).idle == ("no machine fits 'name=x' (kvm9 did not answer)",)


def test_disks_are_left_out_by_pattern_of_machine_and_key() -> None:
    selected = SIGHT.choose(Selection(include=("",), exclude_disks=("db*:vd[bc]", "*:vdz")))
    assert {chosen.machine.name: chosen.exclude_disks for chosen in selected.machines}["db1"] == {"vdb", "vdc"}
    assert selected.idle == ("no disk of a chosen machine fits '*:vdz'",)


def test_a_disks_key_may_hold_colons() -> None:
    one = VirtualMachine("i", "db1", "esx1", PowerState.RUNNING, (Disk("scsi0:1", 1, Format.VMDK, None),))
    selected = Sight((Candidate(one),)).choose(Selection(include=("",), exclude_disks=("db1:scsi0:1",)))
    assert selected.machines[0].exclude_disks == {"scsi0:1"}


@pytest.mark.parametrize(
    "selection",
    [Selection(include=("colour=red",)), Selection(exclude=("name",)), Selection(exclude_disks=("vdb",))],
    ids=["include", "exclude", "disks"],
)
def test_a_rule_that_is_none_is_refused_before_anything_is_asked(selection: Selection) -> None:
    with pytest.raises(ConfigurationError):
        check(selection)


def test_machines_without_readable_tags_are_in_no_selection_by_tags_and_the_others_are() -> None:
    blind = Sight(SIGHT.candidates, {}, {"vc1": "HTTP 403"})
    selected = blind.choose(Selection(include=("",), exclude=("tag=none",)))
    assert [chosen.machine.name for chosen in selected.machines] == ["db1"]
    assert "HTTP 403" in selected.silent["vc1"]
    assert len(blind.choose(Selection(include=("name=web*",))).machines) == 2, "no rule asks for tags"


def services(tmp_path: Path, hypervisor: object) -> Services:
    text = f'[repository]\npath = "{tmp_path}/r"\nunencrypted = true\n[state]\ndirectory = "{tmp_path}/s"\n'
    made = Services(parse(text, tmp_path / "lanfree.toml"))
    if hypervisor is not None:
        made.__dict__["hypervisor"] = hypervisor
    return made


def test_a_silent_site_hides_nobody_elses_machines(tmp_path: Path) -> None:
    left, right = MemoryHypervisor(name="left"), MemoryHypervisor(["h9"], name="right")
    left.add("web", {"vda": bytes(4096)})
    right.add("db", {"vda": bytes(4096)})
    right.fail(1, HypervisorError("log in", "the password ended"), call="machines")
    with services(tmp_path, Sites([left, right], lambda _configuration, _new: None)) as made:
        sight = look(made)
        assert [one.name for one in sight.machines] == ["web"]
        assert "the password ended" in sight.silent["right"]
        assert [one.name for one in look(made).machines] == ["db", "web"]


def test_when_nobody_answers_there_are_no_machines_and_everybody_is_named(tmp_path: Path) -> None:
    site = MemoryHypervisor(name="all")
    site.fail(1, HostUnreachable("all", "no route"), call="machines")
    with services(tmp_path, site) as made:
        sight = look(made)
        assert sight.machines == ()
        assert "no route" in " ".join(sight.silent.values())


def test_without_any_hypervisor_the_remedy_is_told(tmp_path: Path) -> None:
    with services(tmp_path, None) as made, pytest.raises(ConfigurationError) as told:
        look(made)
    assert "lanfree host add" in told.value.hint


BACKUP = Target(iqn="iqn.x:proxy", portals=("192.0.2.1:3260",), presents=("iqn.x:hosts",))
RESTORE = Target(iqn="iqn.x:restore", portals=("192.0.2.1:3260",), presents=("iqn.x:hosts",), access="restore")


@pytest.mark.parametrize(
    ("place", "paths"),
    [
        (LunAddress("iqn.x:hosts", 3), ("iqn.x:proxy",)),
        (LunAddress("iqn.x:proxy", 3), ("iqn.x:proxy",)),
        (LunAddress("iqn.y:other", 3), ()),
        (LunAddress("iqn.y:other", 3, name="naa.6001"), ("iqn.x:proxy",)),
        (DeviceAddress("/dev/sdb", "naa.6001"), ("iqn.x:proxy",)),
        (DeviceAddress("/dev/sdb"), ()),
        (
            VmdkAddress("ds1", "a/a.vmdk", devices=("naa.6001", "naa.6002"), site="vc1"),
            (
                "iqn.x:proxy",
                "iqn.z:second",
            ),
        ),
        (VmdkAddress("ds1", "a/a.vmdk", devices=("naa.9999",), site="vc1"), ()),
        (FileAddress("/srv/vm/a.img"), ("dir:/srv/vm",)),
        (FileAddress("/srv/vm2/a.img"), ()),
    ],
    ids=["presented", "itself", "other", "by-name", "device", "nameless", "vmfs", "unseen", "shared", "beside"],
)
def test_the_fabrics_of_a_disk_follow_from_configuration_and_what_was_seen(
    place: Location, paths: tuple[str, ...]
) -> None:
    facts = Facts([BACKUP, RESTORE], [Path("/srv/vm")], {"naa.6001": {"iqn.x:proxy"}, "naa.6002": {"iqn.z:second"}})
    where = facts.of(machine("m", place))
    assert where.paths == frozenset(paths)
    assert where.host == "kvm1"
    assert len(where.places) == 1


def test_a_disk_that_no_backup_reads_needs_no_fabric_and_its_place_counts() -> None:
    left_out = Disk("vdb", 1, Format.RAW, LunAddress("iqn.x:hosts", 4), excluded=Reason(ReasonCode.DISK_SHARED))
    one = VirtualMachine("i", "m", "kvm1", PowerState.RUNNING, (left_out,))
    where = Facts([BACKUP]).of(one)
    assert where.paths == frozenset()
    assert where.places == ("iqn.x:hosts/4",)


def test_a_lun_known_by_name_alone_has_a_fabric_once_it_was_seen_there(tmp_path: Path) -> None:
    with services(tmp_path, MemoryHypervisor()) as made:
        made.settings = made.settings.model_copy(update={"san": San(target=(BACKUP, RESTORE))})
        unit = Identity(("naa.6001",))
        targets = [san_target(BACKUP), san_target(RESTORE)]
        made.__dict__["fabric"] = SanFabric(targets, scan=lambda _target: {3: unit})
        vmfs = machine("m", VmdkAddress("ds1", "a/a.vmdk", devices=("naa.6001",), site="vc1"))
        assert facts_of(made).of(vmfs).paths == frozenset(), "nobody has looked yet, and nobody is asked"
        for target in targets:
            made.fabric.units(target)
        assert facts_of(made).of(vmfs).paths == {"iqn.x:proxy"}, "a target for restores is no way to read"
