"""The role that is documented is the role that is checked, and what is missing is said where."""

import re
from typing import Any

import pytest

from proxy.hypervisor.vsphere import privileges
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.privileges import PRIVILEGES, Need, Privilege, Scope, Verdict, _lacking

SNAPSHOT = next(p for p in PRIVILEGES if p.id == "VirtualMachine.State.CreateSnapshot")


class Manager:
    """vCenter's side of the question: who has what."""

    def __init__(self, denied: set[tuple[str, str]]) -> None:
        self.denied = denied
        self.asked: list[int] = []

    def HasPrivilegeOnEntities(self, entity: list[Any], session: str, privileges: list[str]) -> list[Any]:  # noqa: N802 - vSphere's name
        self.asked.append(len(entity))
        kind = vim.AuthorizationManager
        return [
            kind.EntityPrivilege(
                entity=one,
                privAvailability=[
                    kind.PrivilegeAvailability(privId=p, isGranted=(one._moId, p) not in self.denied)
                    for p in privileges
                ],
            )
            for one in entity
        ]


def machines(count: int) -> dict[str, tuple[Any, str]]:
    return {f"vm-{i}": (vim.VirtualMachine(f"vm-{i}", None), f"machine{i}") for i in range(count)}


def test_the_documented_table_and_the_checked_list_are_the_same() -> None:
    text = privileges.__doc__ or ""
    named = set(re.findall(r"\b(?:[A-Z]\w+\.)+[A-Z]\w+\b", text)) - {"System.Anonymous", "System.View", "System.Read"}
    short = {"CPUCount, .Memory": ("CPUCount", "Memory"), "Annotation, .Rename": ("Annotation", "Rename")}
    for pair, words in short.items():
        if pair in text:
            named |= {f"VirtualMachine.Config.{word}" for word in words}
    assert named == {p.id for p in PRIVILEGES}


def test_no_privilege_is_listed_twice_and_each_says_why() -> None:
    assert len({p.id for p in PRIVILEGES}) == len(PRIVILEGES)
    assert all(len(p.why) > 5 for p in PRIVILEGES)
    assert {p.need for p in PRIVILEGES} == set(Need)
    assert {p.scope for p in PRIVILEGES} == set(Scope)


def test_what_is_missing_is_told_by_object() -> None:
    manager = Manager({("vm-1", "a"), ("vm-1", "b"), ("vm-2", "a")})
    lacking = _lacking(manager, "session", machines(3), ["a", "b"])
    assert lacking == {"a": ["machine1", "machine2"], "b": ["machine1"]}


def test_many_objects_are_asked_about_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "BATCH", 2)
    manager = Manager({("vm-4", "a")})
    assert _lacking(manager, "session", machines(5), ["a"]) == {"a": ["machine4"]}
    assert manager.asked == [2, 2, 1]


def test_nothing_is_asked_about_no_privilege() -> None:
    manager = Manager(set())
    assert _lacking(manager, "session", machines(3), []) == {}
    assert manager.asked == []


def test_a_verdict_names_what_is_missing_where_and_what_for() -> None:
    verdict = Verdict(SNAPSHOT, 9, tuple(f"machine{i}" for i in range(7)))
    assert not verdict.granted
    assert str(verdict) == (
        "VirtualMachine.State.CreateSnapshot is missing on 7 of 9 "
        "(machine0, machine1, machine2, machine3, machine4, …): make the snapshot that holds the disks still"
    )


def test_a_user_that_sees_no_machine_at_all_is_not_called_fit() -> None:
    verdict = Verdict(SNAPSHOT, 0, ())
    assert not verdict.granted
    assert "sees no machine" in str(verdict)


def test_a_privilege_that_this_release_does_not_have_is_not_demanded() -> None:
    new = Privilege("Some.New.Thing", Need.BACKUP, Scope.GLOBAL, "x")
    assert Verdict(new, 1, (), known=False).granted


def test_a_granted_privilege_is_said_in_one_line() -> None:
    assert str(Verdict(SNAPSHOT, 3, ())) == "VirtualMachine.State.CreateSnapshot: granted"
