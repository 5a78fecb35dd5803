"""The form of a whole-machine restore, and the plan that it means."""

from pydantic import ValidationError

from api.schemas.points import RestorePointDetail
from api.schemas.restores import RestorePlan, RestoreTargets
from api.ui.markup import Markup, join, tag
from api.ui.pages.restore_disks import place_of, places
from api.ui.pages.restore_vsphere import NoPlanError, check_places, filled_in, given_to, is_vsphere, offered, where
from api.ui.parts.blocks import card, note
from api.ui.parts.dialogs import check, field
from api.ui.parts.part import Act
from api.ui.words import count


def form(point: RestorePointDetail, targets: RestoreTargets) -> Markup:
    """All of it, with what is right for most as it stands."""
    problems = [note("Something could not be looked at", *targets.problems, tone="warn")] if targets.problems else []
    there = offered(point, targets)
    parts = [
        card("1. As what", _as_what(point), _host(point, there)),
        card("2. Where each disk goes", places(point, there)),
    ]
    if is_vsphere(point):
        parts.append(where("3. Where in vCenter", there))
    return tag(
        "form",
        *problems,
        *parts,
        card(f"{len(parts) + 1}. How", _how(targets)),
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
    vsphere = is_vsphere(point)
    in_place = "In place of what there is of it. It must be off, and its disks are overwritten where they lie."
    if vsphere:
        in_place = (
            "In place of what there is of it: that must be off, and steps aside under another name with its disks."
        )
    choices = [
        choice(
            "new",
            "A new machine beside the original",
            "With a new identity, its network links down: both may run at once.",
            checked=True,
        ),
        choice("itself", f"{point.machine_name} itself", in_place),
        choice("disks", "Only its disks", "No machine is defined; somebody attaches them."),
    ]
    if vsphere:
        to_another = "One of its disks, beside those that the machine has: its guest takes from it what it needs."
        choices.append(choice("attach", "A disk for another machine", to_another))
    legend = tag("legend", "The restored machine", cls="lf-hidden")
    return join(
        tag("fieldset", legend, *choices),
        tag("div", name, cls="lf-if-new"),
        given_to() if vsphere else None,
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
    host = field("Host", tag("select", *options, id="r-host", name="host"), for_="r-host")
    return tag("div", host, cls="lf-unless-attach")


def _how(targets: RestoreTargets) -> Markup:
    boxes = [
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
    ]
    if any(one.writable for one in targets.luns):  # of files and datastores it can always be told
        boxes.insert(
            1,
            check(
                "Disks that cannot be told apart are not on these LUNs",
                "unidentified",
                help_="Disks with multipath names may lie on any LUN. Tick it only if you know that they do not lie there.",
            ),
        )
    silent = [one.name for one in targets.hosts if one.silent]
    dead = None
    if silent:
        options = [check(name, "dead", value=name) for name in silent]
        dead = tag("fieldset", tag("legend", "Hosts that are known to be dead, and hold nothing open"), *options)
    return tag("div", *(tag("div", box, style="margin-bottom:8px") for box in boxes), dead)


def plan_of(point: RestorePointDetail, act: Act) -> RestorePlan:
    """What the form says; ``attach`` as it was typed. Raises ``ValidationError``, ``NoPlanError`` for what can be no plan."""
    kind = act.one("as", "new")
    disks = {
        image.key: place
        for number, image in enumerate(point.images)
        if (place := place_of(act.one(f"place-{number}"), act.one(f"file-{number}").strip())) is not None
    }
    more = {}
    if is_vsphere(point):
        more = filled_in(act)
        check_places(act, disks)
    return RestorePlan.model_validate(
        {
            "point": point.id,
            "disks": disks,
            "name": (act.one("name").strip() or None) if kind == "new" else None,
            "host": act.one("host"),
            "overwrite": bool(act.one("overwrite")),
            "disks_only": kind == "disks",
            "connected": bool(act.one("connected")),
            "without_hosts": act.form.get("dead", ()),
            "unidentified": bool(act.one("unidentified")),
            "differential": bool(act.one("differential")),
            "compare": bool(act.one("compare")),
            **more,
        }
    )


def wrong_with(error: ValidationError | NoPlanError) -> list[str]:
    """Why what was filled in is no plan, field by field, in the words of the form."""
    if isinstance(error, NoPlanError):
        return list(error.lines)
    return [_wrong(one["loc"], one["msg"]) for one in error.errors()]


def _wrong(place: tuple[int | str, ...], words: str) -> str:
    match place:
        case ("disks", key, *_, "path"):
            return f"{key}: say the whole path of its file, which begins with /, in at most 4,096 characters."
        case ("name", *_):
            return "Its new name: at most 200 characters, in one line."
        case ("attach", *_):
            return "The machine that is given the disk: at most 200 characters, in one line."
        case ("folder" | "pool" as which, *_):
            said = "Folder" if which == "folder" else "Resource pool"
            return f"{said}: at most 4,096 characters, in one line."
        case ("networks", *_):
            return "Other networks: at most 256, each name of at most 500 characters."
    return f"{'.'.join(map(str, place))}: {words}"


def left_out(point: RestorePointDetail, plan: RestorePlan) -> str:
    """Disks that no place was named for, in words; empty if there are none."""
    missing = [image.key for image in point.images if image.key not in plan.disks]
    return f"{count(len(missing), 'disk')} left out: {', '.join(missing)}" if missing else ""
