from typing import Any

from api.schemas.hypervisors import LookState, TreeNode
from appliance.web import tree
from appliance.web.tree import tree_of
from catalog.inventory import ListedHypervisor
from catalog.machine_list import Leaf


def leaf(name: str, **facts: Any) -> Leaf:
    known = {"host": "esx1", "hypervisor": "vc1", "cluster": "", "folder": "", "protection": "protected"}
    return Leaf(name, name, state="running", points=1, **{**known, **facts})


def hypervisor(name: str) -> tuple[ListedHypervisor, LookState]:
    return ListedHypervisor(name, "vcenter", None, None, "", "", 0), LookState.OK


def drawn(node: TreeNode, depth: int = 0) -> list[str]:
    """As text: what it is, how many, how bad."""
    lines = [f"{'  ' * depth}{node.kind} {node.name} {node.count} {node.worst}"]
    for child in node.children:
        lines += drawn(child, depth + 1)
    return lines + [f"{'  ' * (depth + 1)}- {machine.name}" for machine in node.machines]


def test_folders_hold_what_is_below_them_and_show_the_worst_of_it() -> None:
    leaves = [
        leaf("a", folder="/DC/vm/Web"),
        leaf("b", folder="/DC/vm/Web/Old", protection="overdue"),
        leaf("c", folder="/DC/vm", protection="excluded"),
        leaf("d", hypervisor="kvm1", host="kvm1", protection="never"),
        leaf("e", protection="former"),
    ]
    found = tree_of([hypervisor("vc1"), hypervisor("empty")], leaves, "folder")
    assert [line for node in found.hypervisors for line in drawn(node)] == [
        "hypervisor empty 0 None",
        "hypervisor kvm1 1 never",
        "  - d",
        "hypervisor vc1 3 overdue",
        "  folder DC 3 overdue",
        "    folder vm 3 overdue",
        "      folder Web 2 overdue",
        "        folder Old 1 overdue",
        "          - b",
        "        - a",
        "      - c",
    ]
    assert [machine.name for machine in found.former] == ["e"]
    assert [node.state for node in found.hypervisors] == ["ok", "unknown", "ok"]


def test_hosts_stand_below_their_clusters() -> None:
    leaves = [leaf("a", cluster="C1"), leaf("b", cluster="C1", host="esx2"), leaf("c", host="kvm1", hypervisor="kvm1")]
    found = tree_of([hypervisor("vc1")], leaves, "host")
    assert [line for node in found.hypervisors for line in drawn(node)] == [
        "hypervisor kvm1 1 protected",
        "  - c",
        "hypervisor vc1 2 protected",
        "  cluster C1 2 protected",
        "    host esx1 1 protected",
        "      - a",
        "    host esx2 1 protected",
        "      - b",
    ]


def test_every_node_has_a_name_of_its_own() -> None:
    leaves = [leaf("a", folder="/A/A"), leaf("b", folder="/A"), leaf("c", folder="/A", hypervisor="A")]

    def names(node: TreeNode) -> list[str]:
        return [node.id, *(name for child in node.children for name in names(child))]

    found = [name for node in tree_of([], leaves, "folder").hypervisors for name in names(node)]
    assert len(found) == len(set(found)) == 5


def test_very_many_machines_in_one_place_are_cut_off(monkeypatch: Any) -> None:
    monkeypatch.setattr(tree, "MOST", 2)
    (root,) = tree_of([], [leaf(name) for name in "abcde"], "folder").hypervisors
    assert ([machine.name for machine in root.machines], root.more, root.count) == (["a", "b"], 3, 5)
