"""Protect a machine now: what will happen is said first, and then where to watch it."""

from api.schemas.tasks import Task
from api.schemas.work import BackupOrder
from api.ui.markup import join, tag
from api.ui.pages.addresses import task_page
from api.ui.parts.blocks import bullets
from api.ui.parts.dialogs import ask, check
from api.ui.parts.problems import Message
from api.ui.visit import Visit


async def protect(visit: Visit, message: Message, machine: str, name: str) -> None:
    """Ask, then let it begin."""
    happens = bullets(
        (
            "A snapshot is taken, quiesced as the configuration says; the guest may stand still for some seconds.",
            "What changed since its last restore point is read, over the SAN where that is possible.",
            "A new restore point is sealed, and the snapshot is removed.",
        )
    )
    full = check(
        "Read everything, not only what changed",
        "full",
        help_="Takes longer; only what differs is stored all the same.",
    )
    act = await ask(f"Protect {name} now", join(happens, full), "Protect now")
    if act is None:
        return
    order = BackupOrder(full=bool(act.one("full")))
    asked = visit.api.post(Task, f"/machines/{machine}/backups", order, key=visit.api.new_key())
    task = await message.attempt(f"{name} cannot be protected now", asked)
    if task is not None:
        watch = tag("a", "Watch it", href=task_page(task.id))
        message.done(
            f"{name} is being protected", join("It waits for its turn, then for a free slot of a proxy. ", watch)
        )
