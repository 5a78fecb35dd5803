"""Lists of the API as tables: pages, order and filters are the server's, so that ten thousand rows cost no more than fifty."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from api.paging import Page
from api.ui.markup import Child, Markup, icon, join, tag
from api.ui.parts.blocks import button, empty
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import said
from api.ui.visit import Visit
from proxy.errors import ServerRefused

T = TypeVar("T")

ROWS = 50
"""Of a page: what an administrator scrolls through before they would rather filter."""


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """``sort``: the API's name for the order by it, empty if it has none. ``cls``: ``num`` right-aligned, ``act`` buttons."""

    title: str
    cell: Callable[[T], Child]
    sort: str = ""
    cls: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """A query parameter. ``choices``: value and words; without any it is a text."""

    name: str
    title: str
    choices: Sequence[tuple[str, str]] = ()


def plain_table(
    caption: str,
    titles: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    numbers: Sequence[int] = (),
    stack: bool = False,
) -> Markup:
    """A small table of what is there already. ``numbers``: columns that are right-aligned."""
    cls = ["num" if n in numbers else None if title else "act" for n, title in enumerate(titles)]
    named = [title or tag("span", "Actions", cls="lf-hidden") for title in titles]
    header = tag("tr", *(tag("th", title, scope="col", cls=c) for title, c in zip(named, cls, strict=True)))
    body = [
        tag("tr", *(tag("td", cell, cls=c, data_label=t or None) for cell, c, t in zip(row, cls, titles, strict=True)))
        for row in rows
    ]
    hidden = tag("caption", caption, cls="lf-hidden")
    table = tag(
        "table", hidden, tag("thead", header), tag("tbody", *body), cls="lf-table stack" if stack else "lf-table"
    )
    return tag("div", table, cls="lf-scroll", tabindex=0, role="region", aria_label=caption)


@dataclass(slots=True)
class _State:
    """Where somebody is in the list. ``cursors``: of the pages up to this one, the first one's being ``None``."""

    sort: str
    filters: dict[str, str]
    cursors: list[str | None] = field(default_factory=lambda: [None])


class Table(Generic[T]):
    """``path``: the list's route. ``key``: of a row. ``nothing``: shown when the list is empty and nothing was filtered.
    ``extra``: parameters that are always sent. ``acts``: what buttons in cells do. ``asking``: makes what somebody typed into
    filters what the API takes; ``seen``: gets the rows before they are drawn, to look up what cells say besides."""

    def __init__(
        self,
        visit: Visit,
        type_: type[T],
        path: str,
        columns: Sequence[Column[T]],
        *,
        caption: str,
        nothing: Markup,
        filters: Sequence[Filter] = (),
        sort: str = "",
        extra: Mapping[str, Any] | None = None,
        acts: Callable[[Act], Awaitable[None]] | None = None,
        rows: int = ROWS,
        asking: Callable[[Mapping[str, str]], Awaitable[Mapping[str, str]]] | None = None,
        seen: Callable[[Sequence[T]], Awaitable[None]] | None = None,
    ) -> None:
        self._visit, self._type, self._path, self._columns = visit, type_, path, columns
        self._caption, self._nothing, self._filters, self._acts = caption, nothing, filters, acts
        self._extra = dict(extra or {})
        self._rows = rows
        self._asking, self._seen = asking, seen
        said_before = {one.name: visit.query.get(one.name, "") for one in filters}
        self._state = _State(visit.query.get("sort", sort), {k: v for k, v in said_before.items() if v})
        self.items: list[T] = []
        if filters:
            Part(self._heard).show(self._filter_form())
        self._part = Part(self._heard)

    async def load(self, *, background: bool = False) -> None:
        """Get the page anew and draw it; what the API refuses is said in its place."""
        state = self._state
        try:
            filters = state.filters if self._asking is None else await self._asking(state.filters)
            asked = {**self._extra, **filters, "limit": self._rows, "cursor": state.cursors[-1]}
            if state.sort:
                asked["sort"] = state.sort
            page: Page[T] = await self._visit.api.get(
                Page[self._type],  # type: ignore[name-defined]
                self._path,
                background=background,
                **asked,
            )
            if self._seen is not None:
                await self._seen(page.items)
        except ServerRefused as refused:
            self._part.show(said(refused, self._caption))
            return
        self.items = page.items
        self._part.show(self._drawn(page))

    async def _heard(self, act: Act) -> None:
        state = self._state
        match act.act:
            case "filter":
                state.filters = {
                    one.name: act.one(one.name).strip() for one in self._filters if act.one(one.name).strip()
                }
                state.cursors = [None]
            case "sort":
                state.sort = f"-{act.key}" if state.sort == act.key else act.key
                state.cursors = [None]
            case "next":
                state.cursors.append(act.key)
            case "back" if len(state.cursors) > 1:
                state.cursors.pop()
            case _:
                if self._acts is not None:
                    await self._acts(act)
                return
        await self.load()

    def _filter_form(self) -> Markup:
        fields = [_filter(one, self._state.filters.get(one.name, "")) for one in self._filters]
        return tag("form", *fields, cls="lf-filters", data_act="filter", data_change="filter", role="search")

    def _drawn(self, page: Page[T]) -> Markup:
        if not page.items and len(self._state.cursors) == 1:
            if self._state.filters:
                return empty(
                    "Nothing fits", "No entry fits these filters. Empty them to see all.", sign="filter_alt_off"
                )
            return self._nothing
        header = tag("tr", *(self._heading(column) for column in self._columns))
        body = [
            tag("tr", *(tag("td", c.cell(item), cls=c.cls or None, data_label=c.title or None) for c in self._columns))
            for item in page.items
        ]
        hidden = tag("caption", self._caption, cls="lf-hidden")
        table = tag("table", hidden, tag("thead", header), tag("tbody", *body), cls="lf-table stack")
        scroll = tag("div", table, cls="lf-scroll", tabindex=0, role="region", aria_label=self._caption)
        return join(scroll, self._footer(page))

    def _heading(self, column: Column[T]) -> Markup:
        if not column.sort:
            title = column.title or tag("span", "Actions", cls="lf-hidden")
            return tag("th", title, scope="col", cls=column.cls or None)
        order = {column.sort: "ascending", f"-{column.sort}": "descending"}.get(self._state.sort)
        sign = {"ascending": "arrow_upward", "descending": "arrow_downward", None: "unfold_more"}[order]
        sorter = tag("button", column.title, icon(sign), type="button", data_act="sort", data_key=column.sort)
        return tag("th", sorter, scope="col", cls=column.cls or None, aria_sort=order)

    def _footer(self, page: Page[T]) -> Markup | None:
        number = len(self._state.cursors)
        first = (number - 1) * self._rows + 1
        return pager(number, page.next, f"{first:,} to {first + len(page.items) - 1:,}")


def pager(number: int, next_: str | None, shown: str) -> Markup | None:
    """Back and on, below a page of a list; ``None`` where there is but one page. ``number``: from 1; ``next_``: cursor of the
    next one, which comes as the key of ``next``; ``shown``: what this one holds."""
    if next_ is None and number == 1:
        return None
    buttons = join(
        button("Back", "back", kind="small", sign="chevron_left", disabled=number == 1),
        button("Next", "next", key=next_ or "", kind="small", sign="chevron_right", disabled=next_ is None),
    )
    return tag("div", tag("span", shown), tag("div", buttons, cls="lf-right"), cls="lf-foot")


def _filter(one: Filter, value: str) -> Markup:
    if not one.choices:
        return tag(
            "input", type="search", name=one.name, value=value, placeholder=one.title, aria_label=one.title, cls="lf-in"
        )
    options = [
        tag("option", words, value=v, selected=v == value) for v, words in (("", f"{one.title}: all"), *one.choices)
    ]
    return tag("select", *options, name=one.name, aria_label=one.title, cls="lf-in")
