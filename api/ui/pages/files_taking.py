"""Taking files out of a restore point: to the browser, to a directory, into a machine; and keys for what is encrypted."""

import json
from collections.abc import Callable, Sequence

from nicegui import ui

from api.schemas.files import DownloadLink, TaskReference
from api.schemas.settings import Settings
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import go, task_page
from api.ui.pages.files_state import Browsing
from api.ui.parts.dialogs import ask, check, field
from api.ui.parts.part import Act
from api.ui.parts.problems import Message
from api.ui.visit import Visit
from api.ui.words import count
from mounter.restore.directory import Existing

_EXISTING = (
    (Existing.REFUSE, "Nothing: refuse, and say which"),
    (Existing.KEEP_BOTH, "Keep both: the restored one gets a suffix"),
    (Existing.NEWER, "Replace it where the restored one is newer"),
    (Existing.OVERWRITE, "Replace it"),
)


async def send(
    visit: Visit,
    message: Message,
    point: str,
    path_ids: Sequence[str],
    format_: str,
    *,
    session: str | None = None,
    full: bool = False,
) -> None:
    """Let the browser download it, by a link that is good once."""
    body = {
        "point": point,
        "paths": [{"path_id": one} for one in path_ids],
        "format": format_,
        "full_paths": full,
        "session": session,
    }
    link = await message.attempt("It cannot be downloaded", visit.api.post(DownloadLink, "/downloads", body))
    if link is None:
        return
    # An anchor, so that the page stays; the name is the server's.
    ui.run_javascript(f"lanfree.download({json.dumps(link.url)})")
    message.done(f"{link.name} is being downloaded", "An archive ends with a report of what could not be read.")


async def download(
    state: Browsing, message: Message, path_ids: Sequence[str], format_: str, *, full: bool = False
) -> None:
    """What is picked, or one file."""
    session = state.session.id if state.session is not None else None
    await send(state.visit, message, state.point.id, path_ids, format_, session=session, full=full)


async def to_directory(state: Browsing, message: Message) -> None:
    """Ask where to, and let a task do it."""
    settings = await message.attempt("It cannot be asked for", state.visit.api.get(Settings, "/settings"))
    if settings is None:
        return
    allowed = settings.console.restore_directories
    where = (
        f"Below one of: {', '.join(allowed)}. It is made if it is not there."
        if allowed
        else "None is allowed yet: whoever is root there names some as [web] restore_directories in the configuration."
    )
    options = [tag("option", said, value=value.value) for value, said in _EXISTING]
    form = join(
        _what(state),
        field(
            "Directory of the proxy",
            tag(
                "input",
                type="text",
                id="f-directory",
                name="directory",
                required=True,
                value=allowed[0] if allowed else "",
            ),
            for_="f-directory",
            help_=where,
        ),
        field(
            "What if a name is taken",
            tag("select", *options, id="f-existing", name="existing"),
            for_="f-existing",
        ),
        check("Give files to the guest's users and groups, by number", "owner"),
        check("Keep whole paths", "full"),
    )

    async def restore(act: Act, said: Message) -> bool:
        target = {
            "kind": "directory",
            "directory": act.one("directory").strip(),
            "existing": act.one("existing", "refuse"),
            "owner": bool(act.one("owner")),
        }
        return await _asked(state, said, target, full=bool(act.one("full")))

    message.clear()
    await ask("Restore to a directory", form, "Restore", doing=restore)


async def to_guest(state: Browsing, message: Message) -> None:
    """Ask into which machine and where, and let a task do it."""
    form = join(
        _what(state),
        field(
            "Machine",
            tag("input", type="text", id="f-machine", name="machine", required=True, value=state.point.machine_name),
            for_="f-machine",
            help_="It must run, and its guest agent must answer.",
        ),
        field(
            "Directory in it",
            tag("input", type="text", id="f-directory", name="directory", required=True, placeholder="/var/restored"),
            for_="f-directory",
        ),
        check("Replace files that are not the same", "overwrite"),
        check("Keep whole paths", "full"),
    )

    async def restore(act: Act, said: Message) -> bool:
        target = {
            "kind": "guest",
            "machine": act.one("machine").strip(),
            "directory": act.one("directory").strip(),
            "overwrite": bool(act.one("overwrite")),
        }
        return await _asked(state, said, target, full=bool(act.one("full")))

    message.clear()
    await ask("Restore into a machine", form, "Restore", doing=restore)


def _what(state: Browsing) -> Markup:
    moment = state.visit.clock.full(state.point.created_at)
    said = f"{count(len(state.picked), 'file or folder', 'files and folders')} of {state.point.machine_name}, as of {moment}."
    keys = state.session is not None and state.session.keys
    hint = "Keys that you gave here are not part of the task: it uses those that are kept for the machine."
    return join(tag("p", said), tag("p", hint, cls="lf-dim") if keys else None)


async def _asked(state: Browsing, message: Message, target: dict[str, object], *, full: bool) -> bool:
    body = {"paths": [{"path_id": one} for one in state.picked], "to": target, "full_paths": full}
    doing = state.visit.api.post(TaskReference, f"{state.files}/restore", body, key=state.visit.api.new_key())
    task = await message.attempt("Nothing was restored", doing)
    if task is not None:
        go(task_page(task.id))
    return task is not None


async def unlock(state: Browsing, message: Message, volume: str, alive: Callable[[], bool]) -> bool:
    """Ask for a key and open the restore point with it; whether it went on."""
    form = join(
        tag("p", "It stays in the memory of this server until the session ends, and is shown to nobody."),
        field(
            f"Passphrase or recovery key of {volume}",
            tag("input", type="password", id="f-key", name="secret", required=True, autocomplete="off"),
            for_="f-key",
        ),
    )
    act = await ask("Open an encrypted volume", form, "Open")
    if act is None or not act.one("secret"):
        return False

    async def opened() -> bool:
        await state.open(volume, act.one("secret"))
        await state.wait(alive)
        return True

    return bool(await message.attempt("It was not opened", opened()))
