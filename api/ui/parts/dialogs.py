"""Questions before something is done: they name what will happen, and the button says it in a word."""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from api.ui.markup import Child, Markup, join, tag
from api.ui.parts.blocks import bullets, button
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message

Doing = Callable[[Act, Message], Awaitable[bool]]
"""What a dialog is for: whether it was done. What stands against it is said in the dialog's own message."""


async def ask(title: str, content: Markup, do: str, *, danger: bool = False, doing: Doing | None = None) -> Act | None:
    """Let somebody fill in ``content`` (fields of a form) and agree; ``None`` if they would rather not.

    With ``doing`` the dialog stays, and all that was typed in it, until that was done: nobody types it all again because
    of one wrong letter. It cannot be left while it is being done. Raises ``CancelledError`` when its page goes.
    """
    with ui.dialog() as dialog, ui.element("div").classes("lf-dialog"):
        busy = False

        async def heard(act: Act) -> None:
            nonlocal busy
            if busy:
                return
            if act.act == "leave":
                dialog.submit(None)
            elif act.act == "do" and doing is None:
                dialog.submit(act)
            elif act.act == "do" and doing is not None:
                busy = True
                dialog.props("persistent")
                message.wait()
                try:
                    done = await doing(act, message)
                finally:
                    busy = False
                    if not dialog.is_deleted:
                        dialog.props(remove="persistent")
                if done:
                    dialog.submit(act)

        identity = f"dialog-{dialog.id}"
        dialog.props(f'aria-labelledby="{identity}"')
        Part().show(tag("h2", title, id=identity))
        message = Message()
        # Drawn once: drawn anew, it would lose what was typed.
        Part(heard).show(_form(content, do, danger=danger))
    answer = await dialog
    if dialog.is_deleted:
        raise CancelledError  # with its page: nobody is there whom the rest could be shown to
    dialog.delete()
    return answer if isinstance(answer, Act) else None


def _form(content: Markup, do: str, *, danger: bool) -> Markup:
    kind = "primary danger" if danger else "primary"
    send = tag("button", do, type="submit", cls=f"lf-btn {kind}")
    buttons = tag("div", button("Cancel", "leave"), send, cls="lf-actions")
    return tag("form", content, buttons, data_act="do")


async def confirm(title: str, will_happen: Sequence[Child], do: str, *, danger: bool = False) -> bool:
    """Ask whether it shall be done. ``will_happen``: all of it."""
    return await ask(title, bullets(will_happen), do, danger=danger) is not None


def field(said: str, control: Markup, *, for_: str, help_: Child = None) -> Markup:
    """A control with its name above and help below."""
    below = tag("span", help_, cls="lf-help") if help_ else None
    return tag("div", tag("label", said, for_=for_), control, below, cls="lf-field")


def check(said: str, name: str, *, checked: bool = False, value: str = "on", help_: Child = None) -> Markup:
    """A box to tick."""
    box = tag("input", type="checkbox", name=name, value=value, checked=checked)
    below = tag("div", help_, cls="lf-help lf-dim lf-small") if help_ else None
    return tag("div", tag("label", join(box, said)), below)
