"""Settings: what may be changed while the appliance runs, and what only root there changes."""

from http import HTTPStatus

from api.auth.roles import Permission
from api.schemas.settings import Changeable, NotificationResults, NotificationWay, Settings
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import task_page, to
from api.ui.pages.settings_form import filled_in, form
from api.ui.parts.blocks import button, card, empty, facts, link_button, note
from api.ui.parts.chips import chip, label
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import count, sentence


async def build(visit: Visit) -> None:
    """Draw them."""
    page = _Settings(visit)
    await page.load()


class _Settings:
    """The page; saving needs the version that was read."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._values = Changeable()
        self._etag = ""
        editable = visit.may(Permission.CONFIGURE)
        doctor = link_button("Doctor", to("/doctor"), sign="medical_services") if editable else None
        protect = button("Protect the appliance now", "protect") if visit.may(Permission.MAINTAIN) else None
        said = None if editable else "Your role shows them. Whoever may configure changes them."
        Part(self._acted).show(head("Settings", said, actions=join(protect, doctor)))
        self._message = Message()
        self._refused = Part()
        self._form = Part(self._acted)
        self._ways = Part(self._acted)
        self._fixed = Part()

    async def load(self) -> None:
        """Get and draw them. Raises ``ServerRefused``."""
        answer = await self._visit.api.call("GET", "/settings")
        found = Settings.model_validate_json(answer.content)
        self._etag, self._values = answer.headers["ETag"], found.values
        refused = found.refused
        self._refused.show(
            note("The configuration file was not taken", sentence(refused.message), refused.hint or None, tone="bad")
            if refused is not None
            else join()
        )
        editable = self._visit.may(Permission.CONFIGURE)
        self._form.show(form(found.values, editable=editable))
        self._ways.show(_ways(found.notify, editable=editable))
        self._fixed.show(_fixed(self._visit, found))

    async def _acted(self, act: Act) -> None:
        if act.act == "save":
            await self._save(act)
        elif act.act == "test":
            await self._test(act.key)
        elif act.act == "protect":
            doing = self._visit.api.post(Task, "/protections", {}, key=self._visit.api.new_key())
            task = await self._message.attempt("It cannot begin", doing)
            if task is not None:
                self._message.done("The appliance is being protected", tag("a", "Watch it", href=task_page(task.id)))

    async def _save(self, act: Act) -> None:
        values = filled_in(self._values, act)
        doing = self._visit.api.call("PUT", "/settings", values, etag=self._etag)
        answer = await self._message.attempt("Nothing was saved", doing)
        if answer is None:
            return
        if answer.status_code == HTTPStatus.ACCEPTED:
            waits = tag("a", "See what waits", href=to("/approvals"))
            self._message.done("It waits for a second person", "Fewer restore points would be kept by it.", waits)
            return
        await self.load()
        self._message.done("The settings were saved", "Proxies take them over as soon as no task runs there.")

    async def _test(self, name: str) -> None:
        doing = self._visit.api.post(NotificationResults, "/notifications/test", {"name": name} if name else {})
        found = await self._message.attempt("Nobody was told", doing)
        if found is None:
            return
        failed = [f"{one.name}: {one.why}" for one in found.results if not one.told]
        if failed:
            self._message.refuse("Not everybody was told", *failed)
        else:
            self._message.done(f"{count(len(found.results), 'way')} took the test message", "Look whether it came.")


def _ways(ways: list[NotificationWay], *, editable: bool) -> Markup:
    if not ways:
        nothing = empty(
            "Nobody is told when a backup fails",
            "Name ways to people (mail, chat, webhook, syslog) as [[notify]] in the configuration file.",
            sign="notifications_off",
        )
        return card("Notifications", nothing)
    rows = [
        (
            tag("b", one.name),
            label(one.kind),
            ", ".join(one.events) or "everything",
            ", ".join(one.jobs) or "all",
            f"{one.quiet_from:%H:%M} to {one.quiet_to:%H:%M}" if one.quiet_from and one.quiet_to else "none",
            chip("warning", said=f"{one.waiting} waiting") if one.waiting else chip("done", said="Nothing waits"),
            button("Test", "test", key=one.name, kind="small") if editable else None,
        )
        for one in ways
    ]
    titles = ("Name", "Kind", "Told of", "Jobs", "Quiet", "State", "")
    everything = button("Test all", "test", kind="small") if editable else None
    return card("Notifications", plain_table("Notifications", titles, rows, stack=True), right=everything, padded=False)


def _fixed(visit: Visit, found: Settings) -> Markup:
    console = found.console
    mono = {"cls": "lf-mono", "style": "overflow-wrap:anywhere"}
    rows: list[tuple[str, Markup | str | None]] = [
        ("File", tag("span", found.source, **mono)),
        ("Listens at", tag("span", console.address, **mono)),
        ("Names", ", ".join(console.names)),
        ("Certificate", tag("span", console.fingerprint, **mono)),
        ("Signed by our own", tag("span", console.authority, **mono) if console.authority else "no"),
        ("Good until", visit.clock.when(console.certificate_expires_at)),
        ("Two pairs of eyes", "asked for" if console.four_eyes else "not asked for"),
        ("Files may be restored to", ", ".join(console.restore_directories) or "no directory"),
        ("Hypervisors may be at", ", ".join((*console.hypervisor_networks, *console.hypervisor_uris)) or "any address"),
        ("Single sign-on", console.single_sign_on or "none"),
    ]
    about = "They say what the people who sign in here may reach, so that they are changed in the file itself."
    return card("What only root there changes", tag("p", about, cls="lf-dim"), facts(rows))
