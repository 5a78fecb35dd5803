"""All machines: as a list that can be filtered and sorted, or as the tree of their hypervisors."""

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.hypervisors import Tree, TreeMachine, TreeNode
from api.schemas.machines import Machine, Protection
from api.ui.frame import head
from api.ui.markup import EMPTY, Markup, join, tag
from api.ui.pages.addresses import machine_page, to
from api.ui.pages.protecting import protect
from api.ui.parts.blocks import button, card, empty, link_button
from api.ui.parts.chips import chip, label
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Filter, Table
from api.ui.visit import Visit
from api.ui.words import DASH, count, plain, size

FILTERS = (
    Filter("q", "Name"),
    Filter("protection", "Protection", tuple((one.value, plain(one.value)) for one in Protection)),
    Filter(
        "state", "Power", (("running", "Running"), ("paused", "Paused"), ("suspended", "Suspended"), ("off", "Off"))
    ),
    Filter("host", "Host"),
)


FEW = 200
"""Machines of a tree that is opened as a whole: more than that nobody reads through."""


async def build(visit: Visit) -> None:
    """Draw it."""
    by = visit.query.get("view", "list")
    Part().show(_heading(visit, by))
    message = Message()
    if by in ("folder", "host"):
        await _tree(visit, by)
        return

    async def acted(act: Act) -> None:
        if act.act == "protect":
            await protect(visit, message, *_named(table, act.key))

    with _card():
        table = Table(
            visit,
            Machine,
            "/machines",
            _columns(visit),
            caption="Machines",
            filters=FILTERS,
            sort="name",
            nothing=_nothing(visit),
            acts=acted,
        )
    await table.load()


def _card() -> ui.element:
    return ui.element("section").classes("lf-card")


def _named(table: Table[Machine], key: str) -> tuple[str, str]:
    return key, next((one.name for one in table.items if one.id == key), key)


def _heading(visit: Visit, by: str) -> Markup:
    views = [
        link_button(said, to(f"/machines?view={name}"), kind="small primary" if name == by else "small", sign=sign)
        for name, said, sign in (
            ("list", "List", "list"),
            ("host", "By host", "dns"),
            ("folder", "By folder", "folder"),
        )
    ]
    return head("Machines", "What the hypervisors show, and what restore points are of", actions=join(*views))


def _columns(visit: Visit) -> tuple[Column[Machine], ...]:
    clock = visit.clock
    return (
        Column("Name", lambda one: tag("a", one.name, href=machine_page(one.id)), "name"),
        Column("Protection", _protection, "severity"),
        Column("Power", lambda one: label(one.state.value if one.state else "gone")),
        Column("Host", _place, "host"),
        Column("Newest restore point", lambda one: clock.when(one.newest_at), "newest", "nowrap"),
        Column("Points", lambda one: str(one.points), "points", "num"),
        Column("Disks", lambda one: size(one.size), "size", "num"),
        Column("Stored", lambda one: size(one.stored), "stored", "num"),
        Column("", lambda one: _actions(visit, one), "", "act"),
    )


def _protection(one: Machine) -> Markup:
    why = one.failure.message if one.failure else one.excluded
    return tag("span", chip(one.protection.value), title=why or None)


def _place(one: Machine) -> str:
    if not one.hypervisor or one.hypervisor == one.host:
        return one.host or DASH
    return f"{one.host} ({one.hypervisor})"


def _actions(visit: Visit, one: Machine) -> Markup:
    if not visit.may(Permission.BACK_UP) or one.state is None:
        return EMPTY
    return button("Protect now", "protect", key=one.id, kind="small")


def _nothing(visit: Visit) -> Markup:
    look = (
        link_button("Look at the hypervisors", to("/hypervisors"), kind="primary")
        if visit.may(Permission.MAINTAIN)
        else None
    )
    said = "Once a hypervisor is added and was looked at, its machines are listed here."
    return empty("No machines yet", said, action=look, sign="dns")


async def _tree(visit: Visit, by: str) -> None:
    tree = await visit.api.get(Tree, "/inventory/tree", by=by)
    if not tree.hypervisors and not tree.former:
        Part().show(card("Inventory", _nothing(visit)))
        return
    all_ = sum(node.count for node in tree.hypervisors) <= FEW
    roots = [tag("li", _node(node, open_=True, all_=all_)) for node in tree.hypervisors]
    if tree.former:
        leaves = [tag("li", _leaf(one)) for one in tree.former]
        gone = tag("summary", "Gone from their hypervisors ", tag("span", count(len(leaves), "machine"), cls="lf-dim"))
        roots.append(tag("li", tag("details", gone, tag("ul", *leaves))))
    Part().show(card("Inventory", tag("div", tag("ul", *roots), cls="lf-tree")))


def _node(node: TreeNode, *, open_: bool, all_: bool) -> Markup:
    """``all_``: what is below is open, too."""
    worst = (
        chip(node.worst.value) if node.worst and node.worst not in (Protection.PROTECTED, Protection.EXCLUDED) else None
    )
    state = chip(node.state.value) if node.state is not None and node.state.value != "ok" else None
    said = tag(
        "summary",
        tag("b", node.name),
        " ",
        label(node.kind),
        " ",
        tag("span", count(node.count, "machine"), cls="lf-dim"),
        " ",
        state,
        worst,
    )
    children = [tag("li", _node(child, open_=all_, all_=all_)) for child in node.children]
    leaves = [tag("li", _leaf(one)) for one in node.machines]
    if node.more:
        leaves.append(tag("li", f"and {node.more} more", cls="lf-dim"))
    return tag("details", said, tag("ul", *children, *leaves), open=open_)


def _leaf(one: TreeMachine) -> Markup:
    points = tag("span", f" {count(one.points, 'restore point')}", cls="lf-dim lf-small")
    return tag("a", one.name, " ", chip(one.protection.value), points, href=machine_page(one.id), cls="lf-leaf")
