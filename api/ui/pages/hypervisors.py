"""Hypervisors: which there are, how the last look at each went, add one after it was tried."""

from collections.abc import Mapping

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.hypervisors import Certificate, Hypervisor, Tried
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import EMPTY, Markup, join, tag
from api.ui.pages.addresses import task_page, to
from api.ui.parts.blocks import button, empty
from api.ui.parts.chips import chip, label
from api.ui.parts.dialogs import ask, confirm, field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit
from api.ui.words import count


async def build(visit: Visit) -> None:
    """Draw it."""

    async def acted(act: Act) -> None:
        match act.act:
            case "add-kvm":
                await _add_kvm(visit, message)
            case "add-vcenter":
                await _add_vcenter(visit, message)
            case "refresh":
                await _refresh(visit, message)
            case "remove":
                await _remove(visit, message, act.key)
        await table.load()

    Part(acted).show(
        head("Hypervisors", "Hosts and vCenters whose machines are protected", actions=_heading_acts(visit))
    )
    message = Message()
    with ui.element("section").classes("lf-card"):
        table = Table(
            visit,
            Hypervisor,
            "/hypervisors",
            _columns(visit),
            caption="Hypervisors",
            nothing=_nothing(visit),
            acts=acted,
        )
    await table.load()


def _heading_acts(visit: Visit) -> Markup:
    look = button("Look again", "refresh", sign="refresh") if visit.may(Permission.MAINTAIN) else None
    if not visit.may(Permission.CONFIGURE):
        return join(look)
    return join(
        look,
        button("Add vCenter", "add-vcenter", sign="add"),
        button("Add KVM host", "add-kvm", kind="primary", sign="add"),
    )


def _nothing(visit: Visit) -> Markup:
    acts = (
        join(button("Add KVM host", "add-kvm", kind="primary"), " ", button("Add vCenter", "add-vcenter"))
        if visit.may(Permission.CONFIGURE)
        else None
    )
    return empty(
        "No hypervisor yet",
        "Add the KVM hosts or the vCenter whose machines are to be protected. Each is tried before it is written down.",
        action=acts,
        sign="dns",
    )


def _columns(visit: Visit) -> tuple[Column[Hypervisor], ...]:
    clock = visit.clock
    return (
        Column("Name", lambda one: tag("a", one.name, href=to(f"/machines?host={one.name}"))),
        Column("Kind", lambda one: label({"kvm": "KVM", "vcenter": "vCenter"}[one.kind.value])),
        Column("Address", lambda one: tag("span", one.address, cls="lf-mono")),
        Column("State", _state),
        Column("Machines", lambda one: str(one.machines), "", "num"),
        Column("Answered", lambda one: clock.when(one.answered_at), "", "nowrap"),
        Column("", lambda one: _acts(visit, one), "", "act"),
    )


def _state(one: Hypervisor) -> Markup:
    words = {"ok": "Answers", "silent": "Does not answer", "unknown": "Not looked at yet"}
    why = tag("div", one.error, " ", one.hint, cls="lf-dim lf-small") if one.error else None
    return join(
        chip(one.state.value, said=words[one.state.value]),
        None if one.configured else label("not configured any more"),
        why,
    )


def _acts(visit: Visit, one: Hypervisor) -> Markup:
    if not (visit.may(Permission.CONFIGURE) and one.configured):
        return EMPTY
    return button("Remove", "remove", key=one.name, kind="small danger")


def _text(name: str, *, type_: str = "text", value: str = "", required: bool = True, placeholder: str = "") -> Markup:
    return tag(
        "input",
        type=type_,
        id=f"h-{name}",
        name=name,
        value=value,
        required=required,
        placeholder=placeholder,
        autocomplete="off",
    )


async def _add_kvm(visit: Visit, message: Message) -> None:
    form = join(
        tag("p", "The connection is tried first; nothing is written down unless it answers.", cls="lf-dim"),
        field("Name", _text("name", placeholder="kvm1"), for_="h-name"),
        field(
            "Address",
            _text("uri", placeholder="qemu+ssh://root@kvm1/system"),
            for_="h-uri",
            help_="A URI of libvirt. The proxy's key must be let in there.",
        ),
        field(
            "Directory for guest writes during a backup",
            _text("overlay_directory", value="/var/lib/libvirt/images/lanfree"),
            for_="h-overlay_directory",
        ),
    )

    async def add(act: Act, said: Message) -> bool:
        body = {"kind": "kvm", **{name: act.one(name).strip() for name in ("name", "uri", "overlay_directory")}}
        return await _tried(visit, message, said, body)

    await ask("Add a KVM host", form, "Try and add", doing=add)


async def _add_vcenter(visit: Visit, message: Message) -> None:
    form = join(
        tag("p", "The connection is tried first; nothing is written down unless it answers.", cls="lf-dim"),
        field("Name", _text("name", placeholder="vcenter1"), for_="h-name"),
        field("Server", _text("host", placeholder="vcenter.example.org"), for_="h-host"),
        field("Port", _text("port", type_="number", value="443"), for_="h-port"),
        field("User", _text("user", placeholder="backup@vsphere.local"), for_="h-user"),
        field(
            "Password",
            _text("password", type_="password"),
            for_="h-password",
            help_="Kept in a file that only the appliance reads.",
        ),
    )

    async def add(act: Act, said: Message) -> bool:
        port = act.one("port", "443")
        where = {"host": act.one("host").strip(), "port": int(port) if port.isdecimal() else port}
        seen = await said.attempt(
            "The vCenter was not added", visit.api.post(Certificate, "/hypervisors/certificate", where)
        )
        if seen is None or not await _trusted(seen):
            return False
        who = {"name": act.one("name").strip(), "user": act.one("user"), "password": act.one("password")}
        return await _tried(visit, message, said, {"kind": "vcenter", **who, **where, "thumbprint": seen.thumbprint})

    await ask("Add a vCenter", form, "Look at its certificate", doing=add)


async def _trusted(seen: Certificate) -> bool:
    content = join(
        tag(
            "p",
            f"{seen.host} shows this certificate ({seen.subject}). Compare it with what the server's own console shows:",
        ),
        tag("p", seen.thumbprint, cls="lf-mono", style="overflow-wrap:anywhere"),
    )
    return await ask("Is this the server?", content, "It is: trust this one") is not None


async def _tried(visit: Visit, message: Message, said: Message, body: Mapping[str, object]) -> bool:
    result = await said.attempt(f"{body['name']} was not added", visit.api.post(Tried, "/hypervisors", body))
    if result is None:
        return False
    message.done(
        f"{result.name} answers and was added",
        f"It shows {count(result.machines, 'machine')}.",
        tag("a", "Machines", href=to("/machines")),
    )
    return True


async def _refresh(visit: Visit, message: Message) -> None:
    task = await message.attempt(
        "They were not looked at", visit.api.post(Task, "/hypervisors/refresh", key=visit.api.new_key())
    )
    if task is not None:
        message.done("All hypervisors are looked at again", tag("a", "Watch it", href=task_page(task.id)))


async def _remove(visit: Visit, message: Message, name: str) -> None:
    happens = (
        "Its machines are not backed up any more.",
        "Their restore points stay and can be restored elsewhere.",
        "Nothing is changed on the hypervisor itself.",
    )
    if not await confirm(f"Remove {name}", happens, "Remove", danger=True):
        return
    if await message.attempt(f"{name} was not removed", visit.api.call("DELETE", f"/hypervisors/{name}")) is not None:
        message.done(f"{name} was removed")
