"""The form of a whole-machine restore, and the plan that it means."""

import json
from collections.abc import Iterable

from api.schemas.points import Image, RestorePointDetail
from api.schemas.restores import (
    DatastorePlace,
    LunPlace,
    PathPlace,
    Place,
    RestorePlan,
    RestoreTargets,
    TargetLun,
)
from api.ui.markup import Markup, join, tag
from api.ui.parts.blocks import card, note
from api.ui.parts.dialogs import check, field
from api.ui.parts.part import Act
from api.ui.words import count, size

LEFT_OUT = "leave-out"
ELSEWHERE = "elsewhere"


def form(point: RestorePointDetail, targets: RestoreTargets) -> Markup:
    """All of it, with what is right for most as it stands."""
    problems = [note("Something could not be looked at", *targets.problems, tone="warn")] if targets.problems else []
    return tag(
        "form",
        *problems,
        card("1. As what", _as_what(point), _host(point, targets)),
        card(
            "2. Where each disk goes",
            _hint(targets),
            *(_disk(n, image, point, targets) for n, image in _numbered(point)),
        ),
        card("3. How", _how(targets)),
        tag(
            "div",
            tag("button", "Show what will happen", type="submit", cls="lf-btn primary"),
            tag("span", "Nothing is written yet.", cls="lf-dim"),
            cls="lf-inline",
        ),
        data_act="preview",
        data_change="changed",
        cls="lf-gapped",
    )


def _numbered(point: RestorePointDetail) -> Iterable[tuple[int, Image]]:
    return enumerate(point.images)


def _as_what(point: RestorePointDetail) -> Markup:
    def choice(value: str, title: str, said: str, *, checked: bool = False) -> Markup:
        box = tag("input", type="radio", name="as", value=value, checked=checked, id=f"r-as-{value}")
        words = tag("label", title, for_=f"r-as-{value}")
        return tag("div", box, words, tag("div", said, cls="lf-dim lf-small", style="margin:0 0 6px 24px"))

    name = field(
        "Its new name",
        tag("input", type="text", id="r-name", name="name", value=f"{point.machine_name}-restored", maxlength="200"),
        for_="r-name",
    )
    return join(
        tag(
            "fieldset",
            tag("legend", "The restored machine", cls="lf-hidden"),
            choice(
                "new",
                "A new machine beside the original",
                "With a new identity, its network links down: both may run at once.",
                checked=True,
            ),
            choice(
                "itself",
                f"{point.machine_name} itself",
                "In place of what there is of it. It must be off, and its disks are overwritten where they lie.",
            ),
            choice("disks", "Only its disks", "No machine is defined; somebody attaches them."),
        ),
        tag("div", name, cls="lf-if-new"),
    )


def _host(point: RestorePointDetail, targets: RestoreTargets) -> Markup:
    options = [tag("option", f"Where it was ({point.host})", value="")]
    options += [
        tag(
            "option",
            f"{one.name} ({one.hypervisor}){': does not answer' if one.silent else ''}",
            value=one.name,
            disabled=bool(one.silent),
        )
        for one in targets.hosts
    ]
    return field("Host", tag("select", *options, id="r-host", name="host"), for_="r-host")


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
    first = targets.directories[0].path.rstrip("/") if targets.directories else ""
    path = tag(
        "input",
        type="text",
        id=f"r-file-{number}",
        name=f"file-{number}",
        value=f"{first}/{file_name}",
        maxlength="4096",
        data_own=_own_file(image, targets),
    )
    place = tag(
        "select",
        *_places(image, point, targets),
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
    shared = (f"{one.path.rstrip('/')}/" for one in targets.directories)
    return image.source if image.source.startswith(tuple(shared)) else None


def _places(image: Image, point: RestorePointDetail, targets: RestoreTargets) -> list[Markup]:
    # A new machine is what the form begins with: its disks' first place must not be that of the original.
    empty = next((one for one in targets.luns if one.writable and not one.occupants and _fits(one, image)), None)
    luns = [_lun(one, image, point, selected=one is empty) for one in targets.luns if one.writable]
    stores = [
        tag(
            "option",
            f"Datastore {one.name} ({one.hypervisor}), {size(one.free)} free",
            value=_said("datastore", one.name),
        )
        for one in targets.datastores
    ]
    directories = [
        tag(
            "option",
            f"A file in {one.path}, {size(one.free)} free{f' ({one.error})' if one.error else ''}",
            value=ELSEWHERE,
            data_file="1",
        )
        for one in targets.directories[:1]
    ]
    other = [] if directories else [tag("option", "A file, by its path", value=ELSEWHERE, data_file="1")]
    return [*directories, *luns, *stores, *other, tag("option", "Nowhere: leave this disk out", value=LEFT_OUT)]


def _fits(one: TargetLun, image: Image) -> bool:
    return one.size is None or one.size >= image.size


def _lun(one: TargetLun, image: Image, point: RestorePointDetail, *, selected: bool) -> Markup:
    lives = ", ".join(f"{each.machine.name} {each.disk}" for each in one.occupants)
    what = f"holds {lives}" if lives else "nobody's, as far as names tell"
    room = f", {size(one.size)}" if one.size is not None else ""
    own = any(each.machine.id == point.machine and each.disk == image.key for each in one.occupants)
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


def _how(targets: RestoreTargets) -> Markup:
    boxes = (
        check(
            "What the places hold now may be overwritten",
            "overwrite",
            help_="Without this, a restore to a place that holds something is refused.",
        ),
        check(
            "Write only what differs",
            "differential",
            help_="Reads the places first: faster where most is the same. Needs the leave to overwrite.",
        ),
        check(
            "Read every disk back and compare it", "compare", checked=True, help_="Takes as long again as reading does."
        ),
        check("Connect its network", "connected", help_="Off: the machine is defined with its links down."),
    )
    silent = [one.name for one in targets.hosts if one.silent]
    dead = None
    if silent:
        options = [check(name, "dead", value=name) for name in silent]
        dead = tag("fieldset", tag("legend", "Hosts that are known to be dead, and hold nothing open"), *options)
    return tag("div", *(tag("div", box, style="margin-bottom:8px") for box in boxes), dead)


def plan_of(point: RestorePointDetail, act: Act) -> RestorePlan:
    """What the form says. Raises ``ValueError`` (of the schema) for what can be no plan."""
    kind = act.one("as", "new")
    disks = {
        image.key: place
        for number, image in _numbered(point)
        if (place := _place(act.one(f"place-{number}"), act.one(f"file-{number}").strip())) is not None
    }
    return RestorePlan(
        point=point.id,
        disks=disks,
        name=(act.one("name").strip() or None) if kind == "new" else None,
        host=act.one("host"),
        overwrite=bool(act.one("overwrite")),
        disks_only=kind == "disks",
        connected=bool(act.one("connected")),
        without_hosts=act.form.get("dead", ()),
        differential=bool(act.one("differential")),
        compare=bool(act.one("compare")),
        networks={},
    )


def _place(said: str, file: str) -> Place | None:
    if said in ("", LEFT_OUT):
        return None
    if said == ELSEWHERE:
        return PathPlace(path=file)
    kind, *words = json.loads(said)
    if kind == "lun":
        return LunPlace(target=words[0], lun=int(words[1]))
    return DatastorePlace(datastore=words[0])


def left_out(point: RestorePointDetail, plan: RestorePlan) -> str:
    """Disks that no place was named for, in words; empty if there are none."""
    missing = [image.key for image in point.images if image.key not in plan.disks]
    return f"{count(len(missing), 'disk')} left out: {', '.join(missing)}" if missing else ""
