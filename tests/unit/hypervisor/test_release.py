"""What a run's end deletes, and what it leaves: a machine's newest writes are in its overlays, and nowhere else."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from proxy.hypervisor.kvm.records import RunRecord
from proxy.model import Consistency, FileAddress, Format, FrozenDisk, Layer, LunAddress, Snapshot, Tracking

pytestmark = pytest.mark.slow

MACHINE = "11111111-2222-4333-8444-555555555555"
LUN = "iscsi://10.0.0.1/iqn.2026-01.lab:a/1"
K1, K2 = (f"/o/lanfree-r{n}-vda.rolling.0000000{n}.qcow2" for n in (1, 2))
PLAIN = "/o/lanfree-r2-vda.qcow2"
BASE = Layer(LunAddress("iqn.2026-01.lab:a", 1, ("10.0.0.1:3260",)), Format.RAW)


def snapshot_of(overlay, *below, method="overlay"):
    layers = (*(Layer(FileAddress(path), Format.QCOW2) for path in below), BASE)
    return Snapshot(
        run="r2",
        machine=MACHINE,
        machine_name="web",
        host="h1",
        method=method,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        disks=(FrozenDisk("vda", 100, layers, Tracking.LAYER, "mark", overlay=overlay),),
        consistency=Consistency.CRASH,
        reasons=(),
        frozen_seconds=0.0,
    )


def record_of(site, snapshot, **more):
    """As a run leaves it that took this snapshot of the machine. The definition in it names no overlay."""
    from_before = "<domain type='test'><name>web</name><uuid>{}</uuid><devices>{}</devices></domain>".format(
        MACHINE,
        "<disk type='network'><driver name='qemu' type='raw'/><source protocol='iscsi' name='iqn.2026-01.lab:a/1'/>"
        "<target dev='vda'/></disk>",
    )
    overlays = {"vda": snapshot.disks[0].overlay or PLAIN}
    record = RunRecord("r2", MACHINE, "h1", from_before, snapshot, {}, overlays)
    site.records.save(replace(record, **more))


@pytest.fixture
def rolled(tested_site):
    """A run in the middle: k2 on k1 on the LUN."""
    site = tested_site()
    site.put(K1, LUN)
    site.put(K2, K1)
    record_of(site, snapshot_of(K2, K1))
    return site


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("known", ["defined without its overlays", "started from such a definition", "undefined"])
@pytest.mark.parametrize("by", ["its release", "the sweep"])
def test_what_no_chain_names_and_nobody_merged_is_left_and_named(rolled, known, sealed, by):
    """Somebody put in a definition of his own and the guest was shut down; or he took the machine to another site."""
    if known != "undefined":
        rolled.define(runs=known.startswith("started"))
    snapshot = snapshot_of(K2, K1)
    record_of(rolled, snapshot, sealed=sealed)
    if by == "its release":
        rolled.releaser.release(snapshot, sealed=sealed)
    told = [reason.detail for reason in rolled.sweeper.sweep(list)]
    assert rolled.files() == {K1, K2}
    for path in (K1, K2):
        name = path.rpartition("/")[2]
        assert any(f"kept {name} on h1" in detail for detail in told), told
    why = "no machine uses its base" if known == "undefined" else "writes of a machine on"
    assert all(f"{why} {LUN}" in detail for detail in told), "the lowest base tells whose it is"
    assert rolled.records.runs() == [], "nobody can go on with the run"


def test_a_run_that_was_killed_between_its_merge_and_the_deletion_deletes_what_it_merged(tested_site):
    site = tested_site()
    site.put(K1, LUN)
    site.put(K2, LUN)
    site.define(K2)
    record_of(site, snapshot_of(K2, K1), sealed=True, ending=(K1,))
    site.sweeper.sweep(list)
    assert site.files() == {K2}


def test_the_same_holds_for_a_run_that_failed_and_whose_chain_tells_nothing_of_it_any_more(tested_site):
    site = tested_site()
    site.put(K1, LUN)
    site.put(K2, K1)
    site.define(K1)
    record_of(site, snapshot_of(K2, K1), ending=(K2,))
    site.sweeper.sweep(list)
    assert site.files() == {K1} and site.records.runs() == []


def test_what_another_overlay_rests_on_was_not_merged_whatever_the_note_says(rolled):
    rolled.define()
    record_of(rolled, snapshot_of(K2, K1), sealed=True, ending=(K1,))
    told = [reason.detail for reason in rolled.sweeper.sweep(list)]
    assert rolled.files() == {K1, K2} and len(told) == 2


@pytest.mark.parametrize("sealed", [True, False])
def test_an_overlay_of_one_run_only_is_no_less_the_only_copy_of_what_was_written_to_it(tested_site, sealed):
    site = tested_site()
    site.put(PLAIN, LUN)
    site.define()
    snapshot = snapshot_of(PLAIN)
    record_of(site, snapshot)
    site.releaser.release(snapshot, sealed=sealed)
    (told,) = site.sweeper.sweep(list)
    assert site.files() == {PLAIN}
    assert told.detail.startswith(f"kept {PLAIN.rpartition('/')[2]} on h1: writes of a machine on {LUN} may be in it")


def test_old_bytes_of_a_pull_backup_are_not_brought_home_to_a_machine_that_is_gone(tested_site):
    site = tested_site()
    site.put(PLAIN, LUN)
    record_of(site, snapshot_of(None, method="pull"), pull=True)
    assert site.sweeper.sweep(list) == [], "nothing was merged"
    assert site.files() == set()


def test_the_first_overlay_of_a_machine_that_is_gone_is_not_brought_home(tested_site):
    site = tested_site()
    site.put(K2, LUN)
    record_of(site, snapshot_of(K2))
    (told,) = site.sweeper.sweep(list)
    assert site.files() == {K2} and told.detail.endswith(f"no machine uses its base {LUN}")


@pytest.mark.parametrize("how", ["released", "dead"])
def test_scratch_files_of_a_pull_backup_are_deleted(tested_site, how):
    site = tested_site()
    site.put(PLAIN, LUN)
    site.define(runs=True)
    snapshot = snapshot_of(None, method="pull")
    record_of(site, snapshot, pull=True)
    if how == "released":
        site.releaser.release(snapshot, sealed=True)
    else:
        site.sweeper.sweep(list)
    assert site.files() == set() and site.records.runs() == []


def test_a_sweep_tells_of_no_snapshot_that_its_own_run_ended(tested_site):
    site = tested_site()
    site.put(K2, LUN)
    site.define(K2)
    record_of(site, snapshot_of(K2))

    def live():  # leftovers were looked for already, and the run among them
        site.records.forget("r2")
        return []

    assert site.sweeper.sweep(live) == []
    assert site.files() == {K2}
