"""What is a gap, what is a note, and what a person may accept."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from appliance.config_serving import Accepted, GapName
from appliance.jobs.coverage import Covered, Failure, Held, Kind, Known, assess
from catalog.jobs.policy import CopyTo, Policy
from proxy.model import (
    Consistency,
    Disk,
    Format,
    ImageInfo,
    Level,
    MachineConfiguration,
    PowerState,
    Reason,
    ReasonCode,
    RestorePoint,
    VirtualMachine,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DISK = Disk("vda", 4096, Format.RAW, None)
MACHINE = VirtualMachine("id-1", "db1", "h1", PowerState.RUNNING, (DISK,))
JOBS = {"nightly": Policy()}
IMAGE = ImageInfo("vda", 4096, "indexes/1", "d", "san", "naa.1", 1, 1, 1)


def point(hours: float, *reasons: Reason, identity: str = "p1", parent: str | None = "p0") -> RestorePoint:
    moment = NOW - timedelta(hours=hours)
    facts = (identity, "id-1", "db1", "h1", "r", moment, Level.FULL, Consistency.CRASH, (IMAGE,))
    return RestorePoint(*facts, configuration=MachineConfiguration("libvirt-xml", ""), reasons=reasons, parent=parent)


def good(one: RestorePoint) -> Held:
    return Held(one, one)


def assessed(known: Known, *, asked: float | None = None, accepted: Sequence[Accepted] = ()) -> Covered:
    return assess(known, NOW, objective=26.0, asked=asked, accepted=accepted)


def kinds(covered: Covered) -> list[Kind]:
    return [finding.kind for finding in covered.findings]


def test_a_young_good_point_of_a_job_covers_a_machine() -> None:
    covered = assessed(Known(MACHINE, JOBS, good(point(5))))
    assert (covered.covered, covered.findings, covered.jobs) == (True, (), ("nightly",))
    assert (covered.point, covered.objective) == ("p1", 26.0)
    assert covered.age == pytest.approx(5.0)


def test_a_machine_of_no_job_is_not_covered_however_young_its_point_is() -> None:
    assert kinds(assessed(Known(MACHINE, {}, good(point(1))))) == [Kind.NO_JOB]


def test_a_machine_without_restore_points_is_not_covered() -> None:
    covered = assessed(Known(MACHINE, JOBS))
    assert (kinds(covered), covered.covered, covered.age) == ([Kind.NO_POINT], False, None)


@pytest.mark.parametrize(("hours", "expected"), [(25.9, []), (26.1, [Kind.TOO_OLD])])
def test_age_is_held_against_the_objective(hours: float, expected: list[Kind]) -> None:
    assert kinds(assessed(Known(MACHINE, JOBS, good(point(hours))))) == expected


def test_the_strictest_job_counts_and_a_person_may_ask_for_another_objective() -> None:
    jobs = {"hourly": Policy(objective=2), "nightly": Policy()}
    known = Known(MACHINE, jobs, good(point(3)))
    assert kinds(assessed(known)) == [Kind.TOO_OLD]
    assert kinds(assessed(known, asked=4)) == []
    assert "3 h old, the objective is 2 h" in assessed(known).findings[0].text


def test_damaged_and_doubtful_points_do_not_count() -> None:
    damaged, older = point(1, identity="p2"), point(20)
    covered = assessed(Known(MACHINE, JOBS, Held(damaged, older, "verification found damage in it")))
    assert (kinds(covered), covered.covered, covered.point) == ([Kind.NEWEST_NOT_GOOD], True, "p1")
    covered = assessed(Known(MACHINE, JOBS, Held(damaged, None, "verification found damage in it")))
    assert (kinds(covered), covered.covered) == ([Kind.NO_GOOD_POINT], False)
    assert "verification found damage in it" in covered.findings[0].text


def test_points_that_cannot_be_read_are_told() -> None:
    assert kinds(assessed(Known(MACHINE, JOBS, Held(unreadable=2)))) == [Kind.UNREADABLE, Kind.NO_POINT]


def test_a_disk_that_no_point_can_hold_is_a_gap_and_one_that_was_left_out_is_none() -> None:
    one = point(
        1,
        Reason(ReasonCode.DISK_PASSTHROUGH, "vdb: a host device"),
        Reason(ReasonCode.DISK_EXCLUDED, "vdc"),
        Reason(ReasonCode.DISK_EMPTY_DRIVE, "hda: no medium"),
    )
    covered = assessed(Known(MACHINE, JOBS, good(one)))
    assert kinds(covered) == [Kind.DISK_MISSING, Kind.LEFT_OUT]
    assert covered.findings[0].text == "disk-pass-through (vdb: a host device)"


def test_a_disk_that_was_added_since_is_a_gap_and_an_empty_drive_is_none() -> None:
    drive = Disk("hda", 0, Format.RAW, None, excluded=Reason(ReasonCode.DISK_EMPTY_DRIVE))
    machine = replace(MACHINE, disks=(DISK, Disk("vdb", 4096, Format.RAW, None), drive))
    covered = assessed(Known(machine, JOBS, good(point(1))))
    assert [(f.kind, f.text) for f in covered.findings] == [
        (Kind.DISK_MISSING, "disk vdb is newer than the newest good restore point")
    ]
    mentioned = point(1, Reason(ReasonCode.DISK_EXCLUDED, "vdb"))
    assert kinds(assessed(Known(machine, JOBS, good(mentioned)))) == [Kind.LEFT_OUT]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ReasonCode.QUIESCE_NO_AGENT, [Kind.LESS_CONSISTENT]),
        (ReasonCode.QUIESCE_TIMEOUT, [Kind.LESS_CONSISTENT]),
        (ReasonCode.QUIESCE_NOT_ASKED, []),
        (ReasonCode.MACHINE_OFF, []),
    ],
)
def test_less_than_was_asked_for_is_a_gap_and_what_nobody_asked_for_is_none(
    code: ReasonCode, expected: list[Kind]
) -> None:
    assert kinds(assessed(Known(MACHINE, JOBS, good(point(1, Reason(code, "why")))))) == expected


@pytest.mark.parametrize(
    ("consistency", "expected"), [(Consistency.CRASH, [Kind.LESS_CONSISTENT]), (Consistency.FILESYSTEM, [])]
)
def test_a_hook_that_said_nothing_is_a_gap_where_nothing_was_frozen_either(
    consistency: Consistency, expected: list[Kind]
) -> None:
    one = point(1, Reason(ReasonCode.QUIESCED_UNCONFIRMED, "the freezing ended by itself"))
    assert kinds(assessed(Known(MACHINE, JOBS, good(replace(one, consistency=consistency))))) == expected


def test_what_the_image_says_of_its_consistency_counts_too() -> None:
    known = Known(MACHINE, JOBS, good(point(1)), index_reasons=[Reason(ReasonCode.QUIESCED_BUT_DIRTY, "vda1")])
    assert kinds(assessed(known)) == [Kind.LESS_CONSISTENT]


def test_an_incremental_that_read_everything_is_noted_with_its_reason_and_a_full_is_not() -> None:
    image = replace(IMAGE, reasons=(Reason(ReasonCode.TRACKING_LOST, "qemu was killed"),))
    covered = assessed(Known(MACHINE, JOBS, good(replace(point(1), images=(image,)))))
    assert (kinds(covered), covered.covered) == ([Kind.READ_EVERYTHING], True)
    assert covered.findings[0].text == "vda: change-tracking-lost (qemu was killed)"
    first = replace(IMAGE, reasons=(Reason(ReasonCode.NO_TRACKING, "raw"),))
    assert kinds(assessed(Known(MACHINE, JOBS, good(replace(point(1, parent=None), images=(first,)))))) == []


def test_volumes_over_the_guests_network_are_gaps_until_a_person_accepts_them() -> None:
    known = Known(MACHINE, JOBS, good(point(1)), network_volumes=["nfs filer:/home (/home)"])
    assert not assessed(known).covered
    filer = Accepted(machine="DB*", gap=("network-volume",), why="the filer is backed up by itself")
    covered = assessed(known, accepted=[filer])
    assert (covered.covered, covered.findings[0].accepted) == (True, "the filer is backed up by itself")
    assert not assessed(known, accepted=[replace_machine(filer, "web*")]).covered
    assert assessed(known, accepted=[replace_machine(filer, "id-1")]).covered
    other = Accepted(machine="*", gap=("no-job", "too-old"), why="no")
    assert not assessed(known, accepted=[other]).covered


def test_what_nobody_looked_into_is_told_as_a_note() -> None:
    covered = assessed(Known(MACHINE, JOBS, good(point(1)), network_volumes=None))
    assert (kinds(covered), covered.covered) == ([Kind.NOT_LOOKED_INTO], True)


def replace_machine(accepted: Accepted, machine: str) -> Accepted:
    return accepted.model_copy(update={"machine": machine})


def test_a_point_that_its_job_wants_elsewhere_and_is_not_there_is_a_gap() -> None:
    jobs = {"nightly": Policy(copy_to=(CopyTo(name="vault"), CopyTo(name="attic")))}
    known = Known(MACHINE, jobs, good(point(1)), copies={"vault": True, "attic": False, "third": True})
    covered = assessed(known)
    assert [f.text for f in covered.findings] == ["the newest good restore point is not in attic"]
    assert covered.copies == ("third", "vault")
    unknown = assessed(replace(known, copies={"vault": True, "attic": None}))
    assert unknown.findings == (), "what could not be looked at is told once, and not for each machine"


@pytest.mark.parametrize(("size", "expected"), [(4096, []), (4096 + 512, []), (8192, [Kind.DISK_MISSING]), (0, [])])
def test_a_disk_of_another_size_than_in_the_point_is_a_gap(size: int, expected: list[Kind]) -> None:
    machine = replace(MACHINE, disks=(replace(DISK, size=size),))
    covered = assessed(Known(machine, JOBS, good(point(1))))
    assert kinds(covered) == expected
    if expected:
        assert covered.findings[0].text == "disk vda has 8192 bytes now, 4096 in the newest good restore point"


def test_a_point_of_the_future_does_not_hide_a_failure() -> None:
    failure = Failure(NOW - timedelta(hours=2), "snapshot-failed", "no room")
    held = Held(point(-1000, identity="p2"), point(20), "it is dated in the future")
    covered = assessed(Known(MACHINE, JOBS, held, failure=failure))
    assert kinds(covered) == [Kind.NEWEST_NOT_GOOD, Kind.LAST_RUN_FAILED]


def test_a_failure_is_noted_until_a_later_point_was_made() -> None:
    failure = Failure(NOW - timedelta(hours=2), "snapshot-failed", "no room")
    covered = assessed(Known(MACHINE, JOBS, good(point(20)), failure=failure))
    assert (kinds(covered), covered.covered) == ([Kind.LAST_RUN_FAILED], True)
    assert covered.findings[0].text == "2026-11-22 10:00 UTC, snapshot-failed: no room"
    assert kinds(assessed(Known(MACHINE, JOBS, good(point(1)), failure=failure))) == []


def test_the_configuration_can_accept_every_kind_of_gap_and_no_other_word() -> None:
    assert set(get_args(GapName)) == {kind.value for kind in Kind if kind.is_gap}
