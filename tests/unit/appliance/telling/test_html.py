import itertools
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from appliance.telling import charts
from appliance.telling.html import rendered
from appliance.telling.report import Item, JobRunReport, made
from catalog.jobs.policy import Policy
from catalog.jobs.values import JobRunState, TaskState
from proxy.model import Reason, ReasonCode
from tests.unit.appliance.telling.nights import NIGHT, a_point, a_run, a_task, earlier_runs

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onload=alert(3) {{ 7*7 }} \u202e</title></style>"


class Seen(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attributes
        if tag not in {"meta", "rect", "line", "polygon", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def hostile() -> JobRunReport:
    reason = Reason(ReasonCode.QUIESCE_FAILED, HOSTILE)
    facts = {"machine_name": HOSTILE, "host": HOSTILE, "message": HOSTILE, "problems": (HOSTILE,), "reasons": (reason,)}
    items = [Item(a_task(n, TaskState.FAILED, error=HOSTILE, **facts), a_point(n, reason)) for n in range(8)]
    policy = Policy(zone="Europe/Berlin", description=HOSTILE)
    run = a_run(job_name=HOSTILE, policy=policy, notes=(HOSTILE,), state=JobRunState.FAILED, reasons=(reason,))
    return made(run, items, earlier_runs(3))


def test_whatever_strangers_wrote_is_text_and_never_markup() -> None:
    page = Seen(rendered(hostile(), NIGHT))
    assert {"script", "img", "iframe", "a", "link", "object", "foreignobject"}.isdisjoint(page.elements)
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert any("<script>alert(1)</script>" in text for text in page.text)
    assert "49" not in "".join(page.text).replace("2026", "")
    assert page.open == []


def test_the_page_loads_nothing_and_forbids_it() -> None:
    text = rendered(hostile(), NIGHT)
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", text)
    assert [v for n, v in Seen(text).attributes if n in {"src", "href", "srcset", "action"}] == []


def test_what_needs_attention_comes_before_everything_else(failing: JobRunReport) -> None:
    text = rendered(failing, NIGHT)
    order = [
        text.index(f"<h2>{title}") for title in ("Needs attention", "Timeline", "Throughput", "Machines", "Work on")
    ]
    assert order == sorted(order)
    table = text[text.index("<h2>Machines") :]
    assert table.index("web-037") < table.index("web-039") < table.index("web-000")


def test_times_are_those_of_the_jobs_zone(failing: JobRunReport) -> None:
    assert "2026-11-22 22:00 to 2026-11-23 00:00 (Europe/Berlin)" in rendered(failing, NIGHT)


def test_a_run_without_tasks_is_a_page_too() -> None:
    reason = Reason(ReasonCode.PREVIOUS_RUN_UNDER_WAY, "run j1")
    page = rendered(made(a_run(state=JobRunState.SKIPPED, reasons=(reason,), ended_at=None), ()), NIGHT)
    assert "previous-run-under-way" in page
    assert "<svg" not in page
    assert "<h2>Machines" not in page


def test_light_and_dark_are_both_there(failing: JobRunReport) -> None:
    text = rendered(failing, NIGHT)
    names = re.findall(r"(--[a-z]+):", text)
    assert {names.count(name) for name in set(names)} == {2}


# --- charts


def bars(svg: str) -> list[tuple[str, float, float, float, float]]:
    found = re.findall(r'<rect class="(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg)
    return [(name, float(x), float(y), float(width), float(height)) for name, x, y, width, height in found]


def test_bars_of_one_host_never_lie_over_each_other() -> None:
    items = [Item(a_task(n, host="h")) for n in range(60)]
    drawn = bars(str(charts.timeline(made(a_run(), items), NIGHT)))
    assert len(drawn) == 60
    for number, (_, x, y, width, _) in enumerate(drawn):
        for _, other_x, other_y, other_width, _ in drawn[number + 1 :]:
            assert y != other_y or x + width <= other_x + 0.2 or other_x + other_width <= x + 0.2


def test_every_bar_is_inside_of_the_picture_and_in_proportion() -> None:
    begin, hour = NIGHT, timedelta(hours=1)
    items = [
        Item(a_task(1, claimed_at=begin, ended_at=begin + 4 * hour)),
        Item(a_task(2, claimed_at=begin + hour, ended_at=begin + 2 * hour)),
        Item(a_task(3, TaskState.RUNNING, claimed_at=begin + 3 * hour, ended_at=None)),
        Item(a_task(4, TaskState.WAITING, claimed_at=None, ended_at=None)),
    ]
    drawn = bars(str(charts.timeline(made(a_run(), items), begin + 4 * hour)))
    widths = sorted(width for _, _, _, width, _ in drawn)
    assert [round(width / widths[-1], 2) for width in widths] == [0.25, 0.25, 1.0]
    assert all(x >= charts.LEFT and x + width <= charts.WIDTH for _, x, _, width, _ in drawn)


def test_a_timeline_of_very_many_tasks_draws_the_gravest_and_says_so() -> None:
    items = [Item(a_task(n)) for n in range(charts.DRAWN + 500)]
    items.append(Item(a_task(9999, TaskState.FAILED, claimed_at=NIGHT, ended_at=NIGHT)))
    svg = str(charts.timeline(made(a_run(), items), NIGHT))
    assert len(bars(svg)) == charts.DRAWN
    assert '"failed"' in svg
    assert "501 short ones are not drawn" in svg


@pytest.mark.parametrize("hours", [0, 0.01, 1, 9, 30, 24 * 40])
def test_a_timeline_has_a_few_ticks_however_long_it_is(hours: float) -> None:
    items = [Item(a_task(1, claimed_at=NIGHT, ended_at=NIGHT + timedelta(hours=hours)))]
    svg = str(charts.timeline(made(a_run(), items), NIGHT))
    assert svg.count("<line") <= 11
    if hours >= 1:
        assert svg.count("<line") >= 1


def test_the_clocks_change_in_the_night_leaves_the_hours_evenly_apart() -> None:
    begin = NIGHT.replace(month=10, day=24, hour=20)
    items = [Item(a_task(1, claimed_at=begin, ended_at=begin + timedelta(hours=9)))]
    svg = str(charts.timeline(made(a_run(), items), NIGHT))
    places = [float(x) for x in re.findall(r'<line class="tick" x1="([\d.]+)"', svg)]
    gaps = [round(after - before, 0) for before, after in itertools.pairwise(places)]
    assert max(gaps) - min(gaps) <= 1
    assert re.findall(r'middle">([\d:]+)<', svg).count("02:00") == 2


def test_savings_add_up_to_all_that_was_read() -> None:
    drawn = bars(str(charts.savings(earlier_runs(4))))
    for x in {x for _, x, _, _, _ in drawn}:
        assert round(sum(height for _, at, _, _, height in drawn if at == x)) == 120


def test_figures_that_contradict_each_other_do_not_break_a_chart() -> None:
    odd = [replace(run, bytes_new=0, bytes_stored=2 * run.bytes_read, seconds=None) for run in earlier_runs(2)]
    assert all(0 <= height <= 120 for _, _, _, _, height in bars(str(charts.savings(odd))))
    assert charts.throughput(odd) == ""
    assert charts.savings([]) == ""
