"""What the restore of a whole vSphere machine asks beside: where in vCenter it goes, on which networks, or which machine is
given its disk. Other restore points are asked none of this."""

from collections.abc import Mapping
from typing import Any

from api.schemas.machines import Machine
from api.schemas.points import RestorePointDetail
from api.schemas.restores import RestorePlan, RestorePreview, RestoreTargets
from api.ui.markup import Child, Markup, join, tag
from api.ui.parts.blocks import card
from api.ui.parts.dialogs import field
from api.ui.parts.part import Act

_DIALECT = "vsphere-json"
"""Of the configurations that vSphere machines are saved in."""

_NAMED = 12
"""So many networks are named in the form's help: a vCenter may have hundreds."""


class NoPlanError(ValueError):
    """What was filled in is no plan. ``lines``: why, in the words of the form."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def is_vsphere(point: RestorePointDetail) -> bool:
    """Whether vSphere has to make the machine; of a restore point whose manifest cannot be read nobody knows."""
    return point.configuration == _DIALECT


def offered(point: RestorePointDetail, targets: RestoreTargets) -> RestoreTargets:
    """Without the hosts and datastores of other hypervisors, on which this machine cannot be made."""
    if not point.configuration:
        return targets
    if not is_vsphere(point):
        hosts = tuple(one for one in targets.hosts if one.kind != "vsphere")
        return targets.model_copy(update={"hosts": hosts, "datastores": ()})
    site = site_of(point, targets)
    hosts = tuple(one for one in targets.hosts if one.kind == "vsphere" and site in ("", one.hypervisor))
    stores = tuple(one for one in targets.datastores if site in ("", one.hypervisor))
    return targets.model_copy(update={"hosts": hosts, "datastores": stores})


def site_of(point: RestorePointDetail, targets: RestoreTargets) -> str:
    """The vCenter that takes it back: its own, else the only one; empty where that is not known."""
    sites = {one.hypervisor for one in targets.hosts if one.kind == "vsphere"}
    sites |= {one.hypervisor for one in targets.datastores}
    if point.hypervisor in sites:
        return point.hypervisor
    return sites.pop() if len(sites) == 1 else ""


def given_to() -> Markup:
    """Which machine gets the disk."""
    return tag(
        "div",
        field(
            "The machine that is given the disk",
            tag("input", type="text", id="r-attach", name="attach", maxlength="200"),
            for_="r-attach",
            help_="Its name or identity, on the same vCenter. It may run meanwhile. Leave all disks but one out below.",
        ),
        cls="lf-if-attach",
    )


def where(title: str, targets: RestoreTargets) -> Markup:
    """Folder, pool and networks; a disk that is given to a machine needs none of them."""

    def path(name: str, said: str, help_: str) -> Markup:
        box = tag("input", type="text", id=f"r-{name}", name=name, maxlength="4096")
        return field(said, box, for_=f"r-{name}", help_=help_)

    pair = tag(
        "div",
        path("folder", "Folder", "By its path, as /DC/vm/Prod. Empty: the saved one, where it still exists."),
        path(
            "pool",
            "Resource pool",
            "By its path, as /DC/host/CLUSTER/Resources/POOL. Empty: the host or cluster itself, none of its pools.",
        ),
        cls="lf-pair",
    )
    area = tag("textarea", id="r-networks", name="networks", rows=2, spellcheck="false", cls="lf-mono")
    networks = field("Other networks", area, for_="r-networks", help_=_networks_help(targets))
    return tag("div", card(title, pair, networks), cls="lf-unless-attach")


def _networks_help(targets: RestoreTargets) -> Markup:
    known = list(targets.networks[:_NAMED])
    more = len(targets.networks) - len(known)
    there = f" There are {', '.join(known)}{f' and {more} more' if more else ''}." if known else ""
    return join(
        "A line each: the saved network = the one to take instead, as ",
        tag("code", "VM Network = Isolated"),
        f". Empty: each by its saved name.{there}",
    )


def filled_in(act: Act) -> dict[str, Any]:
    """What of a plan these fields mean, as JSON. Raises ``NoPlanError``."""
    if act.one("as") == "attach":
        into = act.one("attach").strip()
        if not into:
            raise NoPlanError("Say which machine is given the disk.")
        return {"attach": into, "host": ""}
    return {
        "folder": act.one("folder").strip(),
        "pool": act.one("pool").strip(),
        "networks": _networks(act.one("networks")),
    }


def _networks(said: str) -> dict[str, str]:
    found: dict[str, str] = {}
    wrong: list[str] = []
    for line in filter(None, map(str.strip, said.splitlines())):
        saved, _, new = (part.strip() for part in line.partition("="))
        if not (saved and new):
            wrong.append(f"Other networks: “{line}” is not of the form “saved = new”.")
        elif found.setdefault(saved, new) != new:
            wrong.append(f"Other networks: “{saved}” is named twice.")
    if wrong:
        raise NoPlanError(*wrong)
    return found


def check_places(act: Act, disks: Mapping[str, Mapping[str, object]]) -> None:
    """What vSphere makes is made in datastores. Said here of each disk: the preview ends with the first. Raises
    ``NoPlanError``."""
    kind = act.one("as", "new")
    if kind == "attach" and len(disks) != 1:
        raise NoPlanError("One disk at a time is given to a machine: leave the others out.")
    other = [] if kind == "disks" else [key for key, place in disks.items() if place["kind"] != "datastore"]
    if other:
        instead = "" if kind == "attach" else ", or “Only its disks”"
        raise NoPlanError(*(f"{key}: vSphere makes it in a datastore; choose one{instead}." for key in other))


def one_of(machines: list[Machine], said: str) -> Machine:
    """The one that is meant by a name or an identity. Raises ``NoPlanError``."""
    there = [one for one in machines if one.gone_at is None]
    found = [one for one in there if one.id == said] or [one for one in there if one.name.casefold() == said.casefold()]
    if not found:
        raise NoPlanError(f"There is no machine “{said}” on this vCenter that you see.")
    if len(found) > 1:
        raise NoPlanError(f"{len(found)} machines are called “{said}”: say the identity of the one that is meant.")
    return found[0]


def where_it_goes(plan: RestorePlan, seen: RestorePreview) -> list[tuple[str, Child]]:
    """Names and values for the summary; none where only LUNs and files are written."""
    if plan.disks_only and not any(disk.kind == "datastore" for disk in seen.disks):
        return []
    others = "; the others by their saved names" if plan.networks else "by their saved names"
    networks = ", ".join(f"{saved} → {new}" for saved, new in sorted(plan.networks.items()))
    return [
        ("Folder", plan.folder or "the saved one, where it still exists"),
        ("Resource pool", plan.pool or "the host or cluster itself, none of its pools"),
        ("Networks", f"{networks}{others}"),
    ]
