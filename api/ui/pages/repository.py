"""A repository: room, growth with forecast, what was measured, who may open it; verify, measure, prune, collect, copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from urllib.parse import quote

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.repositories import Growth, GrowthDay, KeySlot, LastWork, MachineShare, Measured, Repository
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import machine_page, task_page, to
from api.ui.pages.repositories import ROLES, space_bar
from api.ui.parts.blocks import button, card, empty, facts, note, tile
from api.ui.parts.charts import Series, by_day
from api.ui.parts.chips import chip, label
from api.ui.parts.dialogs import ask, check, confirm, field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import DASH, count, duration, plain, sentence, share, size, times
from proxy.units import GiB, KiB, MiB, TiB

_DAYS = 90


async def build(visit: Visit, name: str) -> None:
    """Draw it."""
    path = f"/repositories/{quote(name, safe='')}"
    one = await visit.api.get(Repository, path)
    growth = await visit.api.get(Growth, f"{path}/growth", days=_DAYS)

    async def acted(act: Act) -> None:
        await _acted(visit, message, one, act)

    Part().show(
        head(
            one.name.capitalize() if one.name == "main" else one.name,
            join(label(ROLES[one.role.value]), " ", tag("span", one.place, cls="lf-mono")),
            crumbs=(("Repositories", to("/repositories")),),
        )
    )
    message = Message()
    if one.error:
        Part().show(note("It cannot be used now", one.error, tone="bad"))
    Part().show(_tiles(one))
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", f"Growth over {_DAYS} days")))
        with ui.element("div").classes("lf-body"):
            _chart(visit, one, growth)
            Part().show(_forecast(growth))
    with ui.element("div").classes("lf-grid"):
        if (care := _care(visit, one)) is not None:
            Part(acted, cls="w6").show(care)
        Part(cls="w6").show(card("What it is", facts(_facts(one)), space_bar(one)))
        Part(cls="w6").show(card("Last work", _last(visit, one.last), padded=False))
        Part(cls="w6").show(_measured(visit, one.measured))
        Part(cls="w6").show(card("Who may open it", _slots(visit, one), padded=False))


@dataclass(frozen=True, slots=True)
class _Care:
    """Work on a repository. ``roles``: of repositories that it makes sense for."""

    act: str
    said: str
    what: str
    permission: Permission
    roles: tuple[str, ...]
    kind: str = ""


_BOTH = ("main", "copy-to")

_CARE = (
    _Care("verify", "Verify", "Reads back what is stored, and checks it.", Permission.MAINTAIN, ("main",), "primary"),
    _Care("measure", "Measure", "Unique, stored and dead bytes, by machine.", Permission.MAINTAIN, _BOTH),
    _Care(
        "dry-run", "Show what would go", "Which rules keep each restore point, or do not.", Permission.MAINTAIN, _BOTH
    ),
    _Care("prune", "Delete what no rule keeps", "For good; then its space.", Permission.DELETE_POINTS, _BOTH, "danger"),
    _Care("collect", "Give back space", "Of bytes that no restore point needs.", Permission.MAINTAIN, _BOTH),
    _Care("audit", "Look for tampering", "Signatures, chains, notes of witnesses.", Permission.MAINTAIN, ("main",)),
    _Care(
        "repair",
        "Mend from this copy",
        "What is damaged in main, with what is here.",
        Permission.MAINTAIN,
        ("copy-to",),
    ),
    _Care("copy", "Copy to it", "Restore points that it does not have yet.", Permission.MAINTAIN, ("copy-to",)),
    _Care("copy", "Copy from it", "Restore points that are not here yet.", Permission.MAINTAIN, ("copy-from",)),
)


def _care(visit: Visit, one: Repository) -> Markup | None:
    mine = [each for each in _CARE if one.role.value in each.roles and visit.may(each.permission)]
    if not mine:
        return None
    lines = [
        tag(
            "li",
            button(each.said, each.act, kind=f"small {each.kind}".strip()),
            tag("span", " ", each.what, cls="lf-dim lf-small"),
        )
        for each in mine
    ]
    return card("What can be done", tag("ul", *lines, cls="lf-list"))


async def _acted(visit: Visit, message: Message, one: Repository, act: Act) -> None:
    name = "" if one.role.value == "main" else one.name
    match act.act:
        case "verify":
            await _verify(visit, message)
        case "measure":
            await _begin(visit, message, "measurements", {"repository": name}, "It is being measured")
        case "dry-run":
            body = {"repository": name, "dry_run": True}
            await _begin(visit, message, "prunes", body, "It is being looked at; nothing is deleted")
        case "audit":
            await _begin(visit, message, "repository-audits", {}, "It is being looked for")
        case "repair":
            await _begin(visit, message, "repairs", {"repository": name}, "It is being mended")
        case "collect":
            happens = (
                "Bytes that no restore point needs are looked for.",
                "What an earlier collection found, and nothing needs still, is deleted.",
                "No restore point is touched.",
            )
            if await confirm("Give back space", happens, "Give back space"):
                await _begin(visit, message, "collections", {"repository": name}, "Space is being given back")
        case "prune":
            happens = (
                "Every restore point that no retention rule keeps is deleted, for good.",
                "Never the last good one of a machine, none that is held or in use.",
                "Then its space is given back.",
            )
            if await confirm(f"Delete what no rule keeps in {one.name}", happens, "Delete", danger=True):
                await _begin(visit, message, "prunes", {"repository": name}, "It is being pruned")
        case "copy":
            key = "source" if one.role.value == "copy-from" else "to"
            copied = ("Restore points that are not there yet are copied: of their bytes only what is missing.",)
            if await confirm(f"Copy {'from' if key == 'source' else 'to'} {one.name}", copied, "Copy"):
                await _begin(visit, message, "copies", {key: name}, "It is being copied")


async def _verify(visit: Visit, message: Message) -> None:
    part = tag("input", type="number", id="v-share", name="share", value="100", min="1", max="100", required=True)
    form = join(
        tag("p", "What is stored is read back and checked; damage is recorded with each restore point that has it."),
        field("How much of it, per cent", part, for_="v-share", help_="The longest unread first."),
        check("Also decompress every chunk and compare it", "deep", checked=True),
    )
    act = await ask("Verify", form, "Verify")
    if act is None:
        return
    said = act.one("share", "100")
    body: dict[str, object] = {"share": int(said) / 100 if said.isdecimal() else said, "deep": bool(act.one("deep"))}
    await _begin(visit, message, "verifications", body, "It is being verified")


async def _begin(visit: Visit, message: Message, route: str, body: dict[str, object], done: str) -> None:
    task = await message.attempt("It cannot begin", visit.api.post(Task, f"/{route}", body, key=visit.api.new_key()))
    if task is not None:
        message.done(done, tag("a", "Watch it", href=task_page(task.id)))


def _tiles(one: Repository) -> Markup:
    space, verified = one.space, one.verified
    full = space is not None and space.total and space.free / space.total < 0.1  # a tenth: time to act, not to panic
    tiles = [
        tile(
            DASH if one.points is None else f"{one.points:,}",
            "restore point" if one.points == 1 else "restore points",
            href=to("/restore-points"),
        ),
        tile(size(one.stored), f"stored, of disks of {size(one.logical)}"),
        tile(size(space.free if space else None), "free", tone="warn" if full else ""),
    ]
    if one.measured is not None:
        tiles.append(tile(times(one.measured.deduplication), "deduplication, as measured"))
    if verified is not None:
        tone = "bad" if verified.damaged else "warn" if verified.never else "ok"
        words = f"damaged; {verified.points:,} verified, {verified.never:,} never"
        tiles.append(tile(f"{verified.damaged:,}", words, tone=tone))
    return tag("div", *tiles, cls="lf-tiles")


def _chart(visit: Visit, one: Repository, growth: Growth) -> None:
    days = _every_day(growth.days)
    if not any(day.stored or day.restore_points for day in days):
        Part().show(empty("Nothing was stored in these days", "Backups appear here, a bar a day.", sign="show_chart"))
        return
    # What it held before these days is not told by day: the line ends at what it holds now.
    sums = list(accumulate(day.stored for day in days))
    before = max(0, (one.stored or 0) - sums[-1])
    totals = [before + each for each in sums]
    daily, daily_unit = _unit(max(day.stored for day in days))
    whole, whole_unit = _unit(max(totals))
    series = (
        Series("New each day", [day.stored / daily for day in days], [size(day.stored) for day in days], bar=True),
        Series("Altogether", [each / whole for each in totals], [size(each) for each in totals], right=True),
    )
    units = (f"{daily_unit} a day", f"{whole_unit} altogether")
    by_day("Growth", [day.day for day in days], series, units, dark=visit.dark)


def _every_day(days: Sequence[GrowthDay]) -> list[GrowthDay]:
    """From the first one that is told to today, those without backups among them."""
    if not days:
        return []
    told = {day.day: day for day in days}
    first, last = min(told), max(*told, datetime.now(UTC).date())
    dates = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [told.get(day) or GrowthDay(day=day, stored=0, read=0, restore_points=0) for day in dates]


def _unit(most: int) -> tuple[int, str]:
    """In which an axis up to so many bytes is read best."""
    return next(((unit, name) for unit, name in _UNITS if most >= unit), _UNITS[-1])


_UNITS = ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB"))


def _forecast(growth: Growth) -> Markup:
    forecast = growth.forecast
    if forecast is None:
        return note("No forecast", sentence(growth.why_not) or "There are too few days.")
    pace = f"It grows by {size(forecast.bytes_per_day)} a day ({size(forecast.low)} to {size(forecast.high)})."
    limits = "Retention gives space back, which this does not foresee: it is what happens when nothing is deleted."
    if forecast.full_on is None:
        return note("It does not fill up soon", pace, sentence(growth.why_not) or None, limits, tone="ok")
    latest = f"{forecast.latest:%d %b %Y}" if forecast.latest else "not within ten years"
    early = f"{forecast.earliest:%d %b %Y}" if forecast.earliest else DASH
    title = f"Full about {forecast.full_on:%d %b %Y}"
    return note(title, pace, f"Earliest {early}, latest {latest}.", limits, tone="warn")


def _facts(one: Repository) -> list[tuple[str, Markup | str | None]]:
    immutable = "no" if not one.immutable_days else f"for {count(one.immutable_days, 'day')} after it is written"
    return [
        ("Kind", {"directory": "Directory", "s3": "Object store (S3)"}[one.kind.value]),
        ("Encrypted", "yes" if one.encrypted else chip("attention", said="no")),
        ("Immutable", immutable),
        ("Chunks of", size(one.chunk_size)),
        ("Machines", DASH if one.machines is None else f"{one.machines:,}"),
        ("Identity", tag("span", one.id, cls="lf-mono") if one.id else None),
    ]


def _last(visit: Visit, last: dict[str, LastWork]) -> Markup:
    if not last:
        return empty("Nothing was done yet", "Verify it once, so that you know that it can be read.", sign="verified")
    rows = [
        (
            plain(kind),
            chip(work.state),
            join(tag("a", visit.clock.when(work.ended_at), href=task_page(work.task))),
            join(work.message or None, *(tag("div", problem) for problem in work.problems)),
        )
        for kind, work in sorted(last.items())
    ]
    return plain_table("Last work", ("What", "How", "When", "Said"), rows)


def _measured(visit: Visit, measured: Measured | None) -> Markup:
    if measured is None:
        return card("Measured", empty("It was not measured yet", "“Measure” reads all its indexes.", sign="straighten"))
    rows = [
        ("Disks, virtual", size(measured.logical)),
        ("Of these not zero", size(measured.referenced)),
        ("Each chunk once", f"{size(measured.unique)} ({times(measured.deduplication)} less)"),
        ("Compressed", f"{size(measured.compressed)} ({times(measured.compression)} less)"),
        ("Nobody needs", f"{size(measured.dead)}: “Give back space” deletes it"),
        ("All objects", size(measured.stored)),
        ("Packs, chunks", f"{measured.packs:,}, {measured.chunks:,}"),
    ]
    when = join(visit.clock.when(measured.at), f", took {duration(measured.seconds)}")
    table = _machines(measured.machines, measured.stored) if measured.machines else None
    return card("Measured", facts(rows), table, right=when)


def _machines(machines: tuple[MachineShare, ...], stored: int) -> Markup:
    rows = [
        (
            tag("a", one.machine.name, href=machine_page(one.machine.id)) if one.machine.id else one.machine.name,
            f"{one.points:,}",
            size(one.stored),
            size(one.exclusive),
            share(one.exclusive / stored if stored else None),
        )
        for one in machines
    ]
    titles = ("Machine", "Points", "Stored", "Only its own", "Of all")
    return join(tag("h3", "Who takes most"), plain_table("Machines", titles, rows, numbers=(1, 2, 3, 4)))


def _slots(visit: Visit, one: Repository) -> Markup:
    if not one.encrypted:
        return empty("It is not encrypted", "Whoever reads its storage reads everything in it.", sign="lock_open")
    if not one.key_slots:
        return empty("Not shown to you", "Whoever may configure sees the key slots.", sign="key")
    rows = [(slot.label, _kind(slot), visit.clock.when(slot.created_at)) for slot in one.key_slots]
    paper = tag(
        "p",
        "What “lanfree key paper” prints opens it, too, when all of these are lost: keep it in a safe.",
        cls="lf-dim lf-small",
        style="padding:10px 12px 4px",
    )
    return join(paper, plain_table("Key slots", ("Name", "Kind", "Made"), rows))


def _kind(slot: KeySlot) -> Markup:
    words = {"key-file": "key file", "passphrase": "passphrase", "paper": "paper key"}
    return label(words.get(slot.kind, slot.kind))
