"""What can be done with a job, from wherever it is shown."""

from urllib.parse import quote

from api.schemas.jobs import AskedRun, RunBegun
from api.ui.markup import join, tag
from api.ui.pages.addresses import run_page
from api.ui.parts.blocks import bullets
from api.ui.parts.dialogs import ask, check, confirm
from api.ui.parts.problems import Message
from api.ui.visit import Visit


def path_of(job: str) -> str:
    """In the API."""
    return f"/jobs/{quote(job, safe='')}"


async def begin(visit: Visit, message: Message, job: str) -> RunBegun | None:
    """Run it now, after it was said what that means."""
    happens = bullets(
        (
            "All machines that its rules select now are backed up, in the order and with the limits of a planned run.",
            "Its backup window counts: what does not fit waits for the next run.",
        )
    )
    full = check("Read everything, not only what changed", "full", help_="Takes much longer for all machines.")
    act = await ask(f"Run {job} now", join(happens, full), "Run now")
    if act is None:
        return None
    order = AskedRun(full=bool(act.one("full")))
    asked = visit.api.post(RunBegun, f"{path_of(job)}/runs", order, key=visit.api.new_key())
    begun = await message.attempt(f"{job} cannot run now", asked)
    if begun is not None:
        waits = "" if begun.served else "No proxy is alive: it waits until 'lanfree serve' runs. "
        message.done(f"{job} runs", join(waits, tag("a", "Watch the run", href=run_page(begun.id))))
    return begun


async def switch(visit: Visit, message: Message, job: str, *, on: bool) -> bool:
    """Enable or disable it."""
    if not on:
        happens = (
            "It begins no run by its schedule any more.",
            "A run that goes on is not stopped.",
            "Its machines fall overdue in time.",
        )
        if not await confirm(f"Disable {job}", happens, "Disable"):
            return False
    doing = visit.api.call("POST", f"{path_of(job)}/{'enable' if on else 'disable'}")
    if await message.attempt(f"{job} was not changed", doing) is None:
        return False
    message.done(f"{job} is {'enabled' if on else 'disabled'}")
    return True


async def remove(visit: Visit, message: Message, job: str, etag: str) -> bool:
    """Delete it."""
    happens = (
        "The job and its schedule are removed.",
        "Its restore points stay; from now on the retention of the configuration is theirs.",
        "Its machines are not backed up any more unless another job selects them.",
    )
    if not await confirm(f"Delete job {job}", happens, "Delete job", danger=True):
        return False
    answer = await message.attempt(f"{job} was not deleted", visit.api.call("DELETE", path_of(job), etag=etag))
    return answer is not None
