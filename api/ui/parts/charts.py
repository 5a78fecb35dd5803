"""Charts over days, each with its figures as a table for who does not see it, or wants the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from nicegui import ui

from api.ui.markup import tag
from api.ui.parts.part import Part
from api.ui.parts.tables import plain_table

_LIGHT = {"ink": "#52606d", "line": "#d6dde3", "colours": ["#0b6470", "#b06a00", "#17558c"]}
_DARK = {"ink": "#9dacb8", "line": "#2c3a46", "colours": ["#5cc7d2", "#efc466", "#8fc7f7"]}

_TONES = {"bad": ("#b01212", "#f28b82"), "idle": ("#8794a0", "#7f8f9c")}
"""Light and dark."""


@dataclass(frozen=True, slots=True)
class Series:
    """``values``: one a day, ``None`` where there is none; ``said``: the same in words. ``bar``: else a line; bars are stacked.
    ``right``: by the axis on the right. ``tone``: ``bad``, ``idle``, or the next of the colours."""

    name: str
    values: Sequence[float | None]
    said: Sequence[str]
    bar: bool = False
    right: bool = False
    tone: str = ""


def by_day(caption: str, days: Sequence[date], series: Sequence[Series], units: Sequence[str], *, dark: bool) -> None:
    """Draw it here. ``units``: names of the left axis and, if any series is on it, the right one."""
    options = _options(caption, days, series, units, _DARK if dark else _LIGHT)
    ui.echart(options).style("height:236px;width:100%")
    rows = [(f"{day:%d %b %Y}", *(one.said[n] for one in series)) for n, day in reversed(list(enumerate(days)))]
    titles = ("Day", *(one.name for one in series))
    table = plain_table(caption, titles, rows, numbers=range(1, len(titles)))
    Part().show(
        tag("details", tag("summary", "Figures as a table"), table, cls="lf-more", data_keep=f"figures of {caption}")
    )


def _options(
    caption: str, days: Sequence[date], series: Sequence[Series], units: Sequence[str], look: dict[str, Any]
) -> dict[str, Any]:
    text = {"color": look["ink"], "fontSize": 11, "fontFamily": "Roboto, sans-serif"}
    axes = [
        {
            "type": "value",
            "name": unit,
            "nameTextStyle": {**text, "align": "left" if not n else "right"},
            "axisLabel": text,
            "splitLine": {"show": not n, "lineStyle": {"color": look["line"]}},
        }
        for n, unit in enumerate(units)
    ]
    return {
        "aria": {"enabled": True, "label": {"description": f"{caption}. The figures are in the table below."}},
        "animation": False,
        "color": look["colours"],
        "grid": {"left": 8, "right": 8, "top": 56, "bottom": 4, "containLabel": True},
        "legend": {"type": "scroll", "top": 0, "left": 0, "textStyle": text, "itemWidth": 14, "itemHeight": 8},
        "tooltip": {"trigger": "axis"},
        "xAxis": {
            "type": "category",
            "data": [f"{day.day} {day:%b}" for day in days],
            "axisLabel": text,
            "axisLine": {"lineStyle": {"color": look["line"]}},
            "axisTick": {"show": False},
        },
        "yAxis": axes,
        "series": [
            {
                "name": one.name,
                "type": "bar" if one.bar else "line",
                "data": list(one.values),
                "yAxisIndex": int(one.right),
                "showSymbol": False,
                "barMaxWidth": 14,
                "stack": "bars" if one.bar else None,
                **({"itemStyle": {"color": _TONES[one.tone][look is _DARK]}} if one.tone else {}),
                "connectNulls": True,
            }
            for one in series
        ],
    }
