"""HTML that cannot be broken out of: text is escaped wherever it is not markup already.

Names of machines, jobs and files come from outside. Everything that the console shows of them goes through ``tag``.
"""

from html import escape
from typing import Final

_VOID: Final = frozenset({"br", "hr", "img", "input"})

Child = str | None
Attribute = str | int | float | bool | None


class Markup(str):
    """HTML that ``tag`` or ``join`` made; a plain string is text."""

    __slots__ = ()


EMPTY: Final = Markup("")


def text(said: str) -> Markup:
    """Text, escaped for content and attribute values alike."""
    return said if isinstance(said, Markup) else Markup(escape(said, quote=True))


def join(*children: Child, between: str = "") -> Markup:
    """One after the other; ``None`` is left out."""
    return Markup(text(between).join(text(child) for child in children if child is not None))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """``tag("td", name, cls="num", data_key=key)`` is ``<td class="num" data-key="…">…</td>``.

    A trailing underscore of an attribute is dropped (``for_``), others become dashes; ``False`` and ``None`` leave an attribute
    out, ``True`` sets it without value. Links may only lead into the same origin or to a fragment: ``ValueError`` otherwise,
    since a name from outside in ``javascript:`` would run.
    """
    return Markup(_opened(name, attributes) + ("" if name in _VOID else f"{join(*children)}</{name}>"))


def _opened(name: str, attributes: dict[str, Attribute]) -> str:
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    return f"<{name}{said}>"


def _attribute(key: str, value: Attribute) -> str:
    name = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if name in ("href", "src", "action") and not _local(str(value)):
        raise ValueError(f"{name} leads elsewhere")
    return f' {name}="{text(str(value))}"'


def _local(address: str) -> bool:
    if not address.isprintable():
        return False  # browsers leave out tabs and ends of lines: "/<tab>/x" would be "//x"
    return address.startswith(("#", "?")) or (address.startswith("/") and not address.startswith(("//", "/\\")))


def icon(name: str, label: str | None = None) -> Markup:
    """An icon of the set that comes with the console, for the eye alone unless it has a label."""
    if label is None:
        return tag("span", name, cls="material-icons lf-icon", aria_hidden="true")
    return tag("span", name, cls="material-icons lf-icon", role="img", aria_label=label)
