"""A part of a page that is drawn from markup and drawn anew when that changes; what is clicked in it comes to one handler.

Elements with ``data-act`` speak: buttons and links when clicked, inputs when changed, forms when sent. One browser element a
part keeps the server's memory small whatever the number of rows.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from api.ui.markup import Markup
from api.ui.parts.advice import advice
from proxy.errors import LanfreeError

_CLICK = """(e) => {
  const b = e.target.closest("[data-act]");
  if (!b || /^(FORM|SELECT|INPUT|TEXTAREA)$/.test(b.tagName)) return;
  if (b.tagName !== "SUMMARY") e.preventDefault();
  emit({act: b.dataset.act, key: b.dataset.key || ""});
}"""
_VALUES = """const values = (f) => { const all = {}; for (const [k, v] of new FormData(f)) if (typeof v === "string")
  (all[k] = all[k] || []).push(v); return all; };"""
_CHANGE = (
    "(e) => {"
    + _VALUES
    + """
  const f = e.target.form, b = e.target;
  const value = b.type === "checkbox" ? String(b.checked) : b.value;
  if (b.dataset.act) emit({act: b.dataset.act, key: b.dataset.key || "", value});
  else if (f && f.dataset.change) emit({act: f.dataset.change, key: f.dataset.key || "", form: values(f)});
}"""
)
_SUBMIT = (
    "(e) => {"
    + _VALUES
    + """
  if (!e.target.dataset.act) return;
  e.preventDefault();
  emit({act: e.target.dataset.act, key: e.target.dataset.key || "", form: values(e.target)});
}"""
)


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did. ``form``: all values of a form, each name with a list; ``value``: of a single input."""

    act: str
    key: str = ""
    value: str = ""
    form: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def one(self, name: str, default: str = "") -> str:
        """The first value of a name in the form."""
        return next(iter(self.form.get(name, ())), default)


Handler = Callable[[Act], Awaitable[None]]


def act_of(said: Any) -> Act:
    """What the browser sent, with nothing else let through. Sizes are bounded by the socket's own limit."""
    if not isinstance(said, dict):
        return Act("")
    form = said.get("form")
    values = (
        {str(name): tuple(str(one) for one in all_) for name, all_ in form.items() if isinstance(all_, list)}
        if isinstance(form, dict)
        else {}
    )
    return Act(str(said.get("act", "")), str(said.get("key", "")), str(said.get("value", "")), values)


class Part:
    """One element of the page. ``live``: changes are read out by screen readers."""

    def __init__(self, handler: Handler | None = None, *, cls: str = "", live: bool = False) -> None:
        self._html = ui.html("", sanitize=False).classes(f"lf {cls}".strip())
        if live:
            self._html.props('aria-live="polite"')
        if handler is not None:
            self._listen(handler)

    def _listen(self, handler: Handler) -> None:
        async def heard(event: GenericEventArguments) -> None:
            try:
                await handler(act_of(event.args))
            except LanfreeError as error:  # what a page has no better place for
                hint = advice(error.code, error.hint)
                ui.notify(error.message, type="negative", caption=hint, timeout=10_000, close_button="Close")

            except RuntimeError:
                # A page that was left has closed its way to the API; what was asked for goes on there.
                if not self._html.is_deleted:
                    raise

        for name, script in (("click", _CLICK), ("change", _CHANGE), ("submit", _SUBMIT)):
            self._html.on(name, heard, js_handler=script)

    def show(self, markup: Markup) -> None:
        """Draw it; nothing is sent when it is as it was."""
        if self._html.content != markup:
            self._html.set_content(markup)

    @property
    def element(self) -> ui.html:
        """For what must be put beside it."""
        return self._html
