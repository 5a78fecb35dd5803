"""The inventory as a tree: hypervisor, then folders, or clusters and hosts, then machines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from api.schemas.hypervisors import LookState, Tree, TreeMachine, TreeNode
from api.schemas.machines import Protection
from catalog.inventory import ListedHypervisor
from catalog.machine_list import BY_SEVERITY, FORMER, Leaf
from proxy.model import PowerState

MOST = 1000
"""Machines right below one node: nobody looks for one among more than that without typing a part of its name."""

By = Literal["folder", "host"]

_RANK = {name: rank for rank, name in enumerate(BY_SEVERITY)}


@dataclass
class _Node:
    kind: Literal["hypervisor", "cluster", "host", "folder"]
    name: str
    path: str
    state: LookState | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)
    leaves: list[Leaf] = field(default_factory=list)
    worst: int = len(BY_SEVERITY)
    count: int = 0

    def below(self, kind: Literal["cluster", "host", "folder"], name: str) -> "_Node":
        return self.children.setdefault(f"{kind}/{name}", _Node(kind, name, f"{self.path}/{kind}:{name}"))

    def note(self, leaf: Leaf) -> None:
        self.count += 1
        self.worst = min(self.worst, _RANK[leaf.protection])

    def shown(self) -> TreeNode:
        children = sorted(self.children.values(), key=lambda node: (node.kind, node.name.casefold(), node.name))
        return TreeNode(
            kind=self.kind,
            id=self.path,
            name=self.name,
            state=self.state,
            worst=Protection(BY_SEVERITY[self.worst]) if self.worst < len(BY_SEVERITY) else None,
            count=self.count,
            children=[child.shown() for child in children],
            machines=_machines(self.leaves),
            more=max(len(self.leaves) - MOST, 0),
        )


def tree_of(hypervisors: Iterable[tuple[ListedHypervisor, LookState]], leaves: Sequence[Leaf], by: By) -> Tree:
    """``leaves``: by name, and they stay so."""
    roots = {known.name: _Node("hypervisor", known.name, known.name, state) for known, state in hypervisors}
    former = [leaf for leaf in leaves if leaf.protection == FORMER]
    for leaf in leaves:
        if leaf.protection == FORMER:
            continue
        name = leaf.hypervisor or leaf.host
        root = roots.setdefault(name, _Node("hypervisor", name, name, LookState.UNKNOWN))
        way = [root, *_way(root, leaf, by)]
        for node in way:
            node.note(leaf)
        way[-1].leaves.append(leaf)
    ordered = sorted(roots.values(), key=lambda node: (node.name.casefold(), node.name))
    return Tree(by=by, hypervisors=[root.shown() for root in ordered], former=_machines(former))


def _way(root: _Node, leaf: Leaf, by: By) -> list[_Node]:
    found: list[_Node] = []
    here = root
    if by == "folder":
        for name in filter(None, leaf.folder.split("/")):
            here = here.below("folder", name)
            found.append(here)
        return found
    if leaf.cluster:
        here = here.below("cluster", leaf.cluster)
        found.append(here)
    if leaf.host != root.name:
        found.append(here.below("host", leaf.host))
    return found


def _machines(leaves: Sequence[Leaf]) -> list[TreeMachine]:
    return [
        TreeMachine(
            id=leaf.id,
            name=leaf.name,
            state=PowerState(leaf.state) if leaf.state else None,
            protection=Protection(leaf.protection),
            points=leaf.points,
        )
        for leaf in leaves[:MOST]
    ]
