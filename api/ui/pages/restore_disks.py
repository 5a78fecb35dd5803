"""Where each disk of a whole-machine restore goes: the choices of the form, and the places that they mean."""

import json

from api.schemas.points import Image, RestorePointDetail
from api.schemas.restores import RestoreTargets, TargetDatastore, TargetDirectory, TargetLun
from api.ui.markup import Markup, join, tag
from api.ui.pages.restore_vsphere import is_vsphere
from api.ui.parts.blocks import note
from api.ui.parts.dialogs import field
from api.ui.words import size

LEFT_OUT = "leave-out"
ELSEWHERE = "elsewhere"


def places(point: RestorePointDetail, targets: RestoreTargets) -> Markup:
    """Disk by disk."""
    alone = None
    if is_vsphere(point):
        said = "vSphere makes a machine in its datastores. LUNs and files take disks alone: “Only its disks”."
        alone = tag("p", said, cls="lf-dim")
    return join(_hint(targets), alone, *(_disk(n, image, point, targets) for n, image in enumerate(point.images)))


def _hint(targets: RestoreTargets) -> Markup | None:
    if targets.luns or targets.datastores or targets.directories:
        return None
    return note(
        "No place is configured for restores",
        "Name LUNs by [[san.target]] with access = “restore”, or directories by [raw] shared_directories. Until then, say "
        "the path of a file that hosts and proxies both see.",
        tone="warn",
    )


def _disk(number: int, image: Image, point: RestorePointDetail, targets: RestoreTargets) -> Markup:
    said = join(tag("b", image.key), tag("div", size(image.size), cls="lf-dim lf-small"))
    file_name = f"{point.machine_name}-{image.key}.raw".replace("/", "-")
    several = len(targets.directories) > 1
    first = targets.directories[0].path.rstrip("/") if targets.directories else ""
    path = tag(
        "input",
        type="text",
        id=f"r-file-{number}",
        name=f"file-{number}",
        value=file_name if several else f"{first}/{file_name}",
        maxlength="4096",
        data_own=_own_file(image, targets),
    )
    place = tag(
        "select",
        *_choices(image, point, targets),
        id=f"r-place-{number}",
        name=f"place-{number}",
    )
    return tag(
        "div",
        tag("div", said),
        field(f"Place of {image.key}", place, for_=f"r-place-{number}"),
        tag("div", field("File", path, for_=f"r-file-{number}"), cls="lf-if-file"),
        cls="lf-place",
    )


def _own_file(image: Image, targets: RestoreTargets) -> str | None:
    """Where the disk lay, if files can be restored there."""
    return image.source if any(_holds(one, image) for one in targets.directories) else None


def _holds(one: TargetDirectory, image: Image) -> bool:
    return image.source.startswith(f"{one.path.rstrip('/')}/")


def _choices(image: Image, point: RestorePointDetail, targets: RestoreTargets) -> list[Markup]:
    stores = _stores(image, point, targets)
    vsphere = is_vsphere(point)
    # A new machine is what the form begins with: its disks' first place must not be that of the original.
    empty = next((one for one in targets.luns if one.writable and not one.occupants and _fits(one, image)), None)
    luns = [
        _lun(one, image, point, selected=one is empty and not vsphere, own=not vsphere)
        for one in targets.luns
        if one.writable
    ]
    files = _files(image, targets)
    first = [*stores, *files, *luns] if vsphere else [*files, *luns, *stores]
    other = [] if files else [tag("option", "A file, by its path", value=ELSEWHERE, data_file="1")]
    return [*first, *other, tag("option", "Nowhere: leave this disk out", value=LEFT_OUT)]


def _files(image: Image, targets: RestoreTargets) -> list[Markup]:
    """One of several directories is chosen by itself, and the file named within it; of a single one the whole path is shown."""
    several = len(targets.directories) > 1
    return [
        tag(
            "option",
            f"A file in {one.path}, {size(one.free)} free{f' ({one.error})' if one.error else ''}",
            value=_said("directory", one.path) if several else ELSEWHERE,
            data_file="1",
            data_own="1" if several and _holds(one, image) else None,
        )
        for one in targets.directories
    ]


def _stores(image: Image, point: RestorePointDetail, targets: RestoreTargets) -> list[Markup]:
    """The first one that the machine's host has, with room for the disk, is right for most."""
    if not is_vsphere(point):
        best = None
    else:
        best = next((one for one in targets.datastores if point.host in one.hosts and _has_room(one, image)), None)
    return [
        tag(
            "option",
            f"Datastore {one.name} ({one.hypervisor}), {size(one.free)} free",
            value=_said("datastore", one.name),
            selected=one is best,
        )
        for one in targets.datastores
    ]


def _has_room(one: TargetDatastore, image: Image) -> bool:
    return one.free is None or one.free >= image.size


def _fits(one: TargetLun, image: Image) -> bool:
    return one.size is None or one.size >= image.size


def _lun(one: TargetLun, image: Image, point: RestorePointDetail, *, selected: bool, own: bool) -> Markup:
    """``own``: the machine itself may go back there; a datastore's LUN is nobody's place, and is never written."""
    lives = ", ".join(f"{each.machine.name} {each.disk}" for each in one.occupants)
    what = f"holds {lives}" if lives else "nobody's, as far as names tell"
    room = f", {size(one.size)}" if one.size is not None else ""
    own = own and any(each.machine.id == point.machine and each.disk == image.key for each in one.occupants)
    remark = " (too small)" if not _fits(one, image) else " (its own place)" if own else ""
    return tag(
        "option",
        f"LUN {one.lun} of {one.target}{room}: {what}{remark}",
        value=_said("lun", one.target, str(one.lun)),
        disabled=not _fits(one, image),
        selected=selected,
        data_own="1" if own and _fits(one, image) else None,
    )


def _said(*words: str) -> str:
    return json.dumps(words)


def place_of(said: str, file: str) -> dict[str, object] | None:
    """What was chosen, as JSON: the plan as a whole says which disk's place is none. ``None``: the disk is left out."""
    if said in ("", LEFT_OUT):
        return None
    if said == ELSEWHERE:
        return {"kind": "path", "path": file}
    kind, *words = json.loads(said)
    if kind == "lun":
        return {"kind": "lun", "target": words[0], "lun": int(words[1])}
    if kind == "directory":
        return {"kind": "path", "path": file if file.startswith("/") or not file else f"{words[0].rstrip('/')}/{file}"}
    return {"kind": "datastore", "datastore": words[0]}
