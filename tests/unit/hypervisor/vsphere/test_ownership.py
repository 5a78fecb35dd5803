"""Which snapshots are ours, and where a machine goes on from."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import FormatError, SnapshotFailed
from proxy.hypervisor.run_ids import checked_run
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.ownership import (
    NAME_LIMIT,
    Mark,
    above,
    description,
    found_in,
    installation,
    marked,
    snapshot_name,
)
from proxy.state_directory import StateDirectory

WEB = "51fa1814-c4e4-5e30-acaa-7503896f99a7"
MARK = Mark("b-20261122-1", WEB, "a" * 32, "vss")
BEGIN = datetime(2026, 11, 22, 3, tzinfo=UTC)

runs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)


def node(number: int, name: str, text: str, *children: Any) -> Any:
    return vim.vm.SnapshotTree(
        snapshot=vim.vm.Snapshot(f"snapshot-{number}", None),
        name=name,
        description=text,
        createTime=BEGIN + timedelta(minutes=number),
        childSnapshotList=list(children),
    )


def info(current: int, *roots: Any) -> Any:
    return vim.vm.SnapshotInfo(
        currentSnapshot=vim.vm.Snapshot(f"snapshot-{current}", None), rootSnapshotList=list(roots)
    )


def ours(number: int, mark: Mark, *children: Any) -> Any:
    return node(number, snapshot_name(mark.run, "web"), description(mark), *children)


@pytest.mark.slow
@given(runs, st.text(max_size=200))
def test_a_mark_is_found_again_whatever_run_and_machine_are_called(run, machine):
    mark = Mark(run, WEB, "0" * 32, "none")
    name = snapshot_name(run, machine)
    assert len(name) <= NAME_LIMIT
    assert marked(name, description(mark)) == mark


@pytest.mark.slow
@given(st.text(), st.text())
def test_what_others_write_is_none_of_ours(name, text):
    assert marked(name, text) is None


def test_name_and_description_must_both_say_it():
    assert marked("before the upgrade", description(MARK)) is None
    assert marked("lanfree-b-20261122-1-web", "my own, run=b-20261122-1") is None
    assert marked("lanfree-another-web", description(MARK)) is None
    assert marked(None, None) is None  # type: ignore[arg-type] # as vCenter may answer


def test_ours_are_found_at_any_depth_and_on_their_own_machine_only():
    copied = Mark(MARK.run, "another machine", MARK.by, "none")
    later = Mark("b-20261122-2", WEB, MARK.by, "none")
    tree = info(4, node(1, "x", "y", ours(2, later), node(3, "z", "", ours(4, MARK))), ours(5, copied))
    assert [(f.id, f.mark) for f in found_in(tree, WEB)] == [("snapshot-2", later), ("snapshot-4", MARK)]
    assert found_in(None, WEB) == []


def test_a_machine_goes_on_from_its_current_snapshot_and_all_above_that():
    tree = info(3, node(1, "a", "", node(2, "b", "", node(3, "c", "")), node(4, "d", "")))
    assert [above(tree, f"snapshot-{n}") for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert not above(None, "snapshot-1")


@pytest.mark.parametrize("run", ["", "../x", "a b", "a/b", "a]", "x" * 101, "-a"])
def test_a_run_that_would_break_a_name_is_refused(run):
    with pytest.raises(SnapshotFailed):
        checked_run(run)


def test_an_installation_has_one_name_for_ever(tmp_path):
    name = installation(StateDirectory(tmp_path))
    assert len(name) == 32
    assert installation(StateDirectory(tmp_path)) == name


def test_an_installation_that_was_killed_while_it_took_its_name_takes_one_and_a_damaged_name_is_told(tmp_path):
    file = tmp_path / "installation"
    file.touch()
    assert installation(StateDirectory(tmp_path)) == installation(StateDirectory(tmp_path)) != ""
    file.write_bytes(b"\xff of somebody")
    with pytest.raises(FormatError):
        installation(StateDirectory(tmp_path))
