"""How far work is, in words: speed, bottleneck, expected end."""

from collections.abc import Iterable

from api.schemas.job_runs import JobRunDetail
from api.schemas.tasks import Task
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import run_page, task_page
from api.ui.parts.blocks import button, progress
from api.ui.parts.chips import chip
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import duration, plain, rate, share, size

BOTTLENECKS = {
    "source": "reading from the storage",
    "proxy": "the proxy's own processors",
    "repository": "writing to the repository",
    "pace": "the pace that was set, so that guests do not wait",
}

BOTTLENECK_NAMES = {"source": "Source", "proxy": "Proxy", "repository": "Repository", "pace": "Pace"}
"""The same where there is little room."""


def limits(keys: Iterable[str]) -> str:
    """Limits that are full, in words: ``full:host:kvm1`` is ``full backups of host kvm1``."""
    said = (key.replace("full:", "full backups of ", 1).replace(":", " ", 1) for key in keys)
    return ", ".join(said)


def now_line(visit: Visit, run: JobRunDetail) -> str:
    """How far the run is, and how fast, what most of the time goes into, when it is done about."""
    now = run.progress
    if run.stop_at is not None:
        return "It is being stopped: what runs ends cleanly"
    if not run.tasks.total:
        return "Its machines are being selected"
    if not run.tasks.running and run.tasks.waiting:
        return "Its machines wait for their turn, or for a free slot of a proxy"
    moved = f"{size(now.done_bytes)} of {size(now.total_bytes)}, {rate(now.bytes_per_second)}"
    parts = [f"{share(now.share)} of the run; backups under way: {moved}"]
    if now.bottleneck:
        parts.append(f"most time goes into {BOTTLENECKS.get(now.bottleneck, now.bottleneck)}")
    if now.expected_end is not None:
        parts.append(f"done about {visit.clock.time(now.expected_end)} ({visit.clock.ago(now.expected_end)})")
    return "; ".join(parts)


def task_rows(visit: Visit, tasks: Iterable[Task]) -> Markup:
    """Those that run, each with a bar."""
    rows = [
        (
            join(tag("a", task.title, href=task_page(task.id)), tag("div", _of(task), cls="lf-dim lf-small")),
            tag(
                "div",
                progress(task.progress.share, f"Progress of {task.title}"),
                tag("div", _figures(task), cls="lf-dim lf-small"),
                style="min-width:150px",
            ),
            rate(task.progress.rate),
            visit.clock.time(task.progress.ends_at),
            task.proxy,
            chip("stopped", said="Being stopped")
            if task.stopping
            else button("Stop", "stop-task", key=task.id, kind="small danger")
            if task.stoppable
            else None,
        )
        for task in tasks
    ]
    return plain_table(
        "Tasks that run", ("Task", "Progress", "Speed", "Done about", "Proxy", ""), rows, numbers=(2,), stack=True
    )


def _of(task: Task) -> Markup | str:
    attempt = f", attempt {task.attempt}" if task.attempt > 1 else ""
    if task.job_run:
        return join(tag("a", task.job or "job run", href=run_page(task.job_run)), attempt)
    return f"asked by {task.asked_by}{attempt}" if task.asked_by else f"by hand on the proxy{attempt}"


def _figures(task: Task) -> str:
    now = task.progress
    phase = f"{now.phase}, " if now.phase else ""
    if not now.total:
        return f"{phase}{size(now.done)}" if now.done else f"{phase}beginning"
    return f"{phase}{share(now.share)}, {size(now.done)} of {size(now.total)}"


def stages_table(stages: dict[str, float]) -> Markup | None:
    """Where the seconds of a backup went."""
    if not stages:
        return None
    total = sum(stages.values()) or 1.0
    rows = [
        (plain(name), duration(seconds), share(seconds / total))
        for name, seconds in sorted(stages.items(), key=lambda one: -one[1])
    ]
    return plain_table("Where the time went", ("Stage", "Took", "Share"), rows, numbers=(1, 2))
