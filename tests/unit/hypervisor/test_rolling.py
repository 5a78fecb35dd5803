"""The rules of rolling overlays over chains alone; what libvirt makes of them is in tests/integration/hypervisor."""

from pathlib import Path

import pytest

from proxy.hypervisor.kvm import define
from proxy.hypervisor.kvm.inventory import domain, shown_disk
from proxy.hypervisor.kvm.overlays import Found, found_in
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.hypervisor.kvm.rolling import (
    Rolling,
    RollingPlan,
    aligned,
    failed,
    growth,
    look,
    mark_of,
    rolling_chains,
    sealed,
    unrecorded,
    unseen,
)
from proxy.model import ReasonCode, SnapshotRequest, Tracking
from proxy.state_directory import StateDirectory

OWNED = Ownership(frozenset({"/o"}))
K1, K2, K3 = (f"/o/lanfree-r{n}-vda.rolling.0000000{n}.qcow2" for n in (1, 2, 3))
PLAIN = "/o/lanfree-r2-vda.qcow2"
THEIRS = "/o/theirs.qcow2"
LUN = "<source protocol='iscsi' name='iqn.2026-01.lab:a/1'><host name='10.0.0.1' port='3260'/></source>"


def text_of(*overlays: str, form: str = "raw", lun: str = LUN) -> str:
    """A machine whose disk vda lies on a LUN, below these images, top first."""
    disk = f"<disk type='network'><driver name='qemu' type='{form}'/>{lun}<target dev='vda'/></disk>"
    text = f"<domain><name>web</name><uuid>m</uuid><devices>{disk}</devices></domain>"
    for path in reversed(overlays):
        text = define.with_overlay(text, "vda", path)
    return text


def machine(*overlays: str, form: str = "raw"):
    return domain(text_of(*overlays, form=form))


def asked(**since: str) -> SnapshotRequest:
    return SnapshotRequest("r9", "m", ("vda",), since=since)


# One line each drawing of rolling.py's docstring: chain before the snapshot, the parent's mark, what is known.
@pytest.mark.parametrize(
    ("chain", "mark", "tracking", "reasons"),
    [
        pytest.param([], None, Tracking.NONE, [], id="first run"),
        pytest.param([K1], mark_of(K1), Tracking.LAYER, [], id="next run"),
        pytest.param([K2, K1], mark_of(K2), Tracking.LAYER, [], id="an older one below is not merged yet"),
        pytest.param([K2, K1], mark_of(K1), Tracking.NONE, [ReasonCode.TRACKING_LOST], id="a run in between was lost"),
        pytest.param([K1], mark_of(K2), Tracking.NONE, [ReasonCode.TRACKING_LOST], id="died after its seal"),
        pytest.param([], mark_of(K1), Tracking.NONE, [ReasonCode.TRACKING_LOST], id="merged by somebody"),
        pytest.param([THEIRS, K1], mark_of(K1), Tracking.NONE, [ReasonCode.TRACKING_LOST], id="their snapshot on top"),
        pytest.param([K1, THEIRS], mark_of(K1), Tracking.NONE, [ReasonCode.TRACKING_LOST], id="their image below"),
        pytest.param([PLAIN], None, Tracking.NONE, [], id="an overlay of one run only"),
        pytest.param([K1], None, Tracking.NONE, [], id="no parent"),
        pytest.param([K1], "lanfree-r1", Tracking.NONE, [], id="a bitmap's mark: the disk was qcow2 once"),
    ],
)
def test_only_the_overlay_that_the_parent_names_tells_what_changed(chain, mark, tracking, reasons):
    plan = look(machine(*chain), asked(**({"vda": mark} if mark else {})), OWNED)
    assert plan.tracking("vda") is tracking
    assert [reason.code for reason in plan.reasons] == reasons


def test_an_overlay_on_a_qcow2_base_tells_nothing():
    assert look(machine(K1, form="qcow2"), asked(vda=mark_of(K1)), OWNED).tracking("vda") is Tracking.NONE


def test_a_machine_that_is_off_keeps_the_mark_of_its_overlay_and_begins_none():
    plan = look(machine(K1), asked(), OWNED)
    assert (plan.resting_mark("vda"), plan.change_id("vda")) == (mark_of(K1), None)
    assert look(machine(), asked(), OWNED).resting_mark("vda") is None


@pytest.mark.parametrize(
    ("chain", "stays", "merged"),
    [
        pytest.param([K2, K1], True, [K1], id="what the restore point holds goes into the base"),
        pytest.param([K3, K2, K1], True, [K2, K1], id="what an earlier run could not merge, too"),
        pytest.param([K3], True, [], id="first run: it stays on"),
        pytest.param([K3, K2], False, [K3, K2], id="switched off: all"),
        pytest.param([K2], True, [], id="its end twice: another run's overlay is not touched"),
        pytest.param([THEIRS, K3, K2], True, [K2], id="under somebody else's snapshot"),
    ],
)
def test_after_the_seal_what_lies_below_is_merged(chain, stays, merged):
    run = "r2" if chain[0] == K2 and len(chain) == 2 else "r3"
    found = found_in(machine(*chain), OWNED)
    assert [each.path for each in sealed(run, stays=stays)(found)] == merged


def test_after_a_failure_only_the_runs_own_overlay_is_merged():
    assert [each.path for each in failed("r2", stays=True)(found_in(machine(K2, K1), OWNED))] == [K2]
    assert failed("r2", stays=True)(found_in(machine(K1), OWNED)) == []


@pytest.mark.parametrize(("stays", "merged"), [(True, []), (False, [K2])])
def test_an_overlay_at_rest_goes_only_when_the_option_is_off(stays, merged):
    assert [each.path for each in unrecorded("r2", stays=stays)(found_in(machine(K2, K1), OWNED))] == merged
    assert [each.path for each in unrecorded("r2", stays=stays)(found_in(machine(PLAIN), OWNED))] == [PLAIN]


def test_the_disks_of_a_machine_are_ended_each_by_itself():
    found = [Found("r2", "vda", "/o/a", True, True), Found("r1", "vdb", "/o/b", True, True)]
    assert sealed("r2", stays=True)(found) == [], "disk vdb was not in this run"


def test_the_disk_is_shown_where_its_base_is_and_the_overlay_beside_it():
    shown, raw = shown_disk(machine(K2, K1).disks[0], OWNED, 5), shown_disk(machine().disks[0], OWNED, 5)
    assert (shown.location, shown.format, shown.below) == (raw.location, raw.format, raw.below)
    assert (shown.overlay, raw.overlay) == (K2, None)


@pytest.mark.parametrize(
    ("saved", "running", "after"),
    [
        pytest.param([], [K1], [K1], id="defined anew without it"),
        pytest.param([K1], [K2], [K2], id="stayed behind on another host"),
        pytest.param([K1], [K2, K1], [K2, K1], id="stayed behind in mid-backup"),
        pytest.param([K1], [K1], None, id="as it should be"),
        pytest.param([K1], [], None, id="nothing is known of what runs"),
        pytest.param([THEIRS], [K1], None, id="somebody means something else"),
    ],
)
def test_a_definition_names_the_overlays_that_the_machine_runs_on(saved, running, after):
    text = aligned(text_of(*saved), rolling_chains(machine(*running), OWNED), OWNED)
    assert (text and [link.path for link in domain(text).disks[0].chain]) == (after and [*after, None])


def test_a_definition_with_another_base_is_left_alone_and_one_with_another_portal_is_not():
    chains = rolling_chains(machine(K1), OWNED)
    assert aligned(text_of(lun=LUN.replace("a/1", "a/2")), chains, OWNED) is None
    mended = aligned(text_of(lun=LUN.replace("10.0.0.1", "10.0.0.2")), chains, OWNED)
    assert mended is not None and K1 in mended and "10.0.0.2" in mended


@pytest.mark.parametrize(
    ("listed", "on"),
    [((), False), (("web",), True), (("w*",), True), (("M",), True), (("db-*",), False), (("*",), True)],
)
def test_the_option_names_machines_by_pattern_of_name_or_by_identity(tmp_path: Path, listed, on):
    assert Rolling(listed, Records(StateDirectory(tmp_path))).asked(machine()) is on


def test_an_overlay_is_at_rest_when_its_run_has_no_record(tmp_path: Path):
    records = Records(StateDirectory(tmp_path))
    rolls = Rolling(("*",), records)
    (found,) = found_in(machine(K1), OWNED)
    (plain,) = found_in(machine(PLAIN), OWNED)
    assert rolls.at_rest(found) and not rolls.at_rest(plain)
    records.save(RunRecord("r1", "m", "h1", ""))
    assert not rolls.at_rest(found)


@pytest.mark.parametrize(
    ("begun", "room"),
    [
        # 70 that k1 has not taken, should k2 be merged down into it; 90 of another machine's; a whole disk for k2.
        pytest.param({"vda": K2}, 70 + 90 + 100, id="the next overlay of a machine that rolls"),
        pytest.param({}, 70 + 90, id="a run that begins none leaves the others their room"),
    ],
)
def test_room_is_asked_for_all_that_rolling_overlays_may_yet_take(tested_site, begun, room):
    site = tested_site()
    site.put(K1, "/base", capacity=100, allocation=30)
    site.put(K3, "/other", capacity=100, allocation=10)
    site.put(PLAIN, "/base", capacity=100, allocation=0)
    site.define(K1)
    (place,), _ = site.hosts.everywhere("11111111-2222-4333-8444-555555555555")
    assert growth(RollingPlan(tops={"vda": K1}, begun=begun), place, {"vda": 100}) == room


def test_hosts_that_do_not_have_the_overlay_are_named_and_so_are_those_that_were_not_asked(tested_site):
    site = tested_site("h1", "h2", "h3", "h4", overlays={"h2": "/own"}, silent=["h4"])
    site.put(K1, "/base")
    (told,) = unseen(RollingPlan(begun={"vda": K1}), site.hosts)
    assert told.code is ReasonCode.OVERLAY_NOT_SHARED
    assert told.detail == "the machine cannot migrate live to h2, h3; not asked, being silent: h4"
    site.put(K1, "/base", host="h3")
    (told,) = unseen(RollingPlan(begun={"vda": K1}), site.hosts)
    assert "to h2;" in told.detail
    assert unseen(RollingPlan(), site.hosts) == []


def test_a_directory_that_all_hosts_share_is_nothing_to_tell(tested_site):
    site = tested_site("h1", "h2")
    for host in ("h1", "h2"):
        site.put(K1, "/base", host=host)
    assert unseen(RollingPlan(begun={"vda": K1}), site.hosts) == []
