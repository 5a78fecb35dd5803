"""Problems of the API as people read them: what happened, why, and what to do."""

from collections.abc import Awaitable
from typing import TypeVar

from api.ui.frame import head, leave
from api.ui.markup import Markup, join, tag
from api.ui.parts.advice import advice
from api.ui.parts.blocks import note
from api.ui.parts.part import Part
from api.ui.words import plain, sentence
from proxy.errors import ServerRefused

T = TypeVar("T")


def said(refused: ServerRefused, what: str = "") -> Markup:
    """``what``: that was to be done."""
    wrong = [sentence(f"{_field(place)}: {words}") for place, words in refused.fields]
    title = f"{what}: {plain(refused.code).lower()}" if what else plain(refused.code)
    # The message of an invalid input repeats its fields, by their JSON pointers.
    repeated = any(f"{place}: {words}" in refused.message for place, words in refused.fields)
    message = None if repeated else sentence(refused.message)
    return note(title, message, sentence(advice(refused.code, refused.hint)) or None, *wrong, tone="bad")


def _field(pointer: str) -> str:
    """What people call the place of ``#/policy/schedule/at/0``: "at"."""
    named = [part for part in pointer.strip("#/").split("/") if part and not part.isdigit()]
    return named[-1].replace("_", " ") if named else pointer


def problem(refused: ServerRefused, what: str) -> None:
    """In the page, where its content would be. Whoever is not signed in any more is sent to do it."""
    if refused.status == 401:
        leave()
        return
    Part().show(join(head(what), said(refused)))


def incident(what: str) -> None:
    """Something that nobody expected."""
    why = "Something unexpected happened; the log of the console has it."
    shown = note("This page cannot be shown", why, "Load it again; if it stays so, please report it.", tone="bad")
    Part().show(join(head(what), shown))


class Message:
    """A place for what came of something that somebody did on this page; read out by screen readers."""

    def __init__(self) -> None:
        self._part = Part(live=True)

    def clear(self) -> None:
        """Nothing happened."""
        self._part.show(join())

    def wait(self) -> None:
        """It is being done."""
        self._part.show(tag("p", "One moment…", cls="lf-dim"))

    def done(self, title: str, *lines: Markup | str) -> None:
        """It was done."""
        self._part.show(note(title, *lines, tone="ok"))

    def refuse(self, title: str, *lines: Markup | str) -> None:
        """It was not done, and the API need not be asked why."""
        self._part.show(note(title, *lines, tone="bad"))

    async def attempt(self, what: str, doing: Awaitable[T]) -> T | None:
        """Do it; what the API refuses is shown here, and the answer is ``None`` then."""
        try:
            answer = await doing
        except ServerRefused as refused:
            if refused.status == 401:
                leave()
            self._part.show(said(refused, what))
            return None
        self.clear()
        return answer
