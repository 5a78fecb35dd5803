"""Folders, data centres, clusters, pools and vApps: their names and paths, written as vSphere's own tools write them."""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import moid


class Tree:
    """Names and parents of the inventory's places."""

    def __init__(self, places: Iterable[Found]) -> None:
        self._places = {found.id: found for found in places}

    def name(self, place: Any) -> str:
        """Its own, empty for no place."""
        found = self._places.get(moid(place))
        return name_of(found) if found else ""

    def path(self, place: Any) -> str:
        """From below the root folder, with ``/`` before each name (one within a name is ``%2f``); empty for no place."""
        names, seen = [], set()
        found = self._places.get(moid(place))
        while found is not None and found.id not in seen and found.get("parent") is not None:
            seen.add(found.id)
            names.append(name_of(found).replace("/", "%2f"))
            found = self._places.get(moid(found.get("parent")))
        return "".join(f"/{name}" for name in reversed(names))

    def datacenter(self, place: Any) -> str:
        """Path of the data centre above a place, as datastore access wants it: without the leading slash."""
        found, seen = self._places.get(moid(place)), set()
        while found is not None and found.id not in seen:
            if isinstance(found.object, vim.Datacenter):
                return self.path(found.object).removeprefix("/")
            seen.add(found.id)
            found = self._places.get(moid(found.get("parent")))
        return ""

    def folder_of_vapp(self, vapp: Any) -> Any:
        """A machine of a vApp has no folder of its own."""
        found = self._places.get(moid(vapp))
        return found.get("parentFolder") if found else None

    def paths(self, kind: Any, below: str = "") -> tuple[str, ...]:
        """Paths of all places of a kind; ``below``: only under that folder of a data centre."""
        found = [self.path(f.object) for f in self._places.values() if isinstance(f.object, kind)]
        return tuple(sorted(path for path in found if path and (not below or f"/{below}" in f"{path}/")))


def everywhere(vcenter: Vcenter) -> list[Found]:
    """All places of a vCenter."""
    kinds = (vim.Folder, vim.Datacenter, vim.ComputeResource, vim.ResourcePool)
    found = [one for kind in kinds for one in collector.find(vcenter, kind, ("name", "parent"))]
    found += collector.find(vcenter, vim.VirtualApp, ("name", "parent", "parentFolder"))
    return [*found, *collector.read(vcenter, [vcenter.content.rootFolder], ("name", "parent"))]


def above(vcenter: Vcenter, starts: Sequence[Found]) -> list[Found]:
    """All places above some objects: a few levels, each one question."""
    known: dict[str, Found] = {}
    level = list(starts)
    while level:
        above = {moid(o): o for f in level for p in _UPWARDS if (o := f.get(p)) is not None and moid(o) not in known}
        vapps = [o for o in above.values() if isinstance(o, vim.VirtualApp)]
        others = [o for o in above.values() if not isinstance(o, vim.VirtualApp)]
        level = collector.read(vcenter, others, ("name", "parent"), kind=vim.ManagedEntity)
        level += collector.read(vcenter, vapps, ("name", "parent", "parentFolder"))
        known.update({found.id: found for found in level})
    return list(known.values())


_UPWARDS = ("parent", "parentVApp", "parentFolder", "resourcePool")


def name_of(found: Found) -> str:
    """vSphere writes ``/``, ``\\`` and ``%`` in names as ``%2f``, ``%5c``, ``%25``."""
    return unquote(str(found.get("name") or found.id))
