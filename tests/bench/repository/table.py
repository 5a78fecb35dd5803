"""Prints what was measured: medians, ratios of paired runs, and beside each the goal and whether it was met."""

from collections.abc import Iterable, Mapping, Sequence

from tests.bench.repository.contest import BY_WORK, GOALS, JOBS, OURS, C, Fixed, Results
from tests.bench.repository.measure import Figures, median

TITLES = {
    "full": "full backup, over NBD",
    "restore": "restore of the full backup to a new file",
    "known": "incremental, changed areas known",
    "scan": "incremental by reading everything",
}
PEAK = 120.0
"""MiB, of any work of ours."""

STORED = 1.6
"""What an incremental may store at 256 KiB chunks, against 64 KiB."""

HEAD = f"{'':18}{'wall s':>8}{'empty s':>8}{'CPU s':>8}{'RSS MiB':>8}{'stored':>8}{'we are':>9}{'beyond':>8}{'CPU':>7}   goal"


def verdict(reached: float, goal: float, *, most: bool = False) -> str:
    """``met`` or ``missed``; a goal is a least value, or a greatest one."""
    return "met" if (reached <= goal if most else reached >= goal) else "MISSED"


def show(results: Results, fixed: Fixed, missing: dict[str, str]) -> Iterable[str]:
    """The lines of the contest's tables."""
    yield f"\nmedians of {results.rounds} rounds of pairs; stored in MiB; empty: wall of the same on a disk of next to nothing;"
    yield '"we are" N times faster (whole processes), beyond what an empty disk takes, and with N times less CPU'
    yield f"goals are for whole processes; for {' and '.join(BY_WORK)} beyond that"
    for job in JOBS:
        yield f"\n{TITLES[job]}"
        yield HEAD
        yield _row(OURS, results.ours[job], fixed[job, OURS])
        for (done, name), pairs in results.pairs.items():
            if done != job:
                continue
            speed, work = median(p.speed for p in pairs), median(p.work for p in pairs)
            goal = GOALS.get((job, name))
            tail = f"{goal:6.2f}x {verdict(work if name in BY_WORK else speed, goal)}" if goal else "      -"
            cpu = median(p.cpu for p in pairs)
            row = _row(name, [p.theirs for p in pairs], fixed[job, name])
            yield f"{row}{speed:8.2f}x{work:7.2f}x{cpu:6.2f}x{tail}"
        for name in missing:
            goal = GOALS.get((job, name))
            if goal:
                yield f"{name:18}{'missing':>8}; goal {goal}x is not judged"
        yield from _bound(job, results)


def _bound(job: str, results: Results) -> Iterable[str]:
    """How much faster than the others the C program is, which does our work without Python: what this machine can give."""
    if (job, C) not in results.pairs:
        return
    told = _against(job, results, median(p.theirs.wall for p in results.pairs[job, C]))
    if told:
        yield f"the C program against the others, by their medians: {told}"


def coarse(results: Results, full: Sequence[Figures]) -> str:
    """Full backups of ours with larger chunks."""
    wall = median(f.wall for f in full)
    told = _against("full", results, wall)
    return f"full backup with chunks of 1 MiB: {wall:.2f} s{told and ', against the others: '}{told}"


def _against(job: str, results: Results, wall: float) -> str:
    """How many times longer than ``wall`` the peers took."""
    taken = {name: median(p.theirs.wall for p in pairs) for (done, name), pairs in results.pairs.items() if done == job}
    return ", ".join(f"{name} {theirs / wall:.2f}x" for name, theirs in taken.items() if name != C)


def verified(figures: Figures, size: float) -> str:
    """Our verification of everything; ``size``: MiB of the repository."""
    return (
        f"\nverify of all of it: {figures.wall:.2f} s, {size / figures.work:.0f} MiB a second of what is stored, "
        f"CPU {figures.cpu:.2f} s, RSS {figures.rss:.0f} MiB"
    )


def memory(results: Results, large: Mapping[str, Figures]) -> Iterable[str]:
    """Our peak in each work, on the bench's disk and on a large one."""
    for disk, peaks in (
        ("this disk", {job: max(f.rss for f in results.ours[job]) for job in JOBS}),
        ("a disk of 1 TiB with a full index", {job: f.rss for job, f in large.items()}),
    ):
        parts = ", ".join(f"{job} {peak:.0f}" for job, peak in peaks.items())
        worst = verdict(max(peaks.values()), PEAK, most=True)
        yield f"peak memory, {disk}, MiB: {parts}; goal at most {PEAK:.0f}: {worst}"


def parts(pairs: Sequence[tuple[Figures, Figures]]) -> str:
    """A full backup against the sum of its parts, which one thread did one after the other."""
    ratio = median(full.work / alone.work for full, alone in pairs)
    return (
        f"full backup, wall, against the sum of its parts: {ratio:.2f} (0.50: both cores wholly used, and nothing lost)"
    )


def durable(pairs: Sequence[tuple[Figures, Figures]]) -> Iterable[str]:
    """A full backup by us and by the C program on this machine's disk, which both sync; nothing if that was not run."""
    if pairs:
        ratio = median(theirs.work / own.work for own, theirs in pairs)
        own, theirs = (median(figures.work for figures in each) for each in zip(*pairs, strict=True))
        yield f"full backup on this machine's disk: {own:.2f} s, {C} {theirs:.2f} s: {ratio:.2f} of its speed"


def stored(coarse: float, fine: float) -> str:
    """The incremental's growth of the store at both chunk sizes."""
    ratio = coarse / fine
    return (
        f"incremental stored: {coarse:.0f} MiB at 256 KiB chunks, {fine:.0f} MiB at 64 KiB: "
        f"{ratio:.2f}x, goal at most {STORED}x: {verdict(ratio, STORED, most=True)}"
    )


def _row(name: str, figures: list[Figures], empty: float) -> str:
    wall, cpu = median(f.wall for f in figures), median(f.cpu for f in figures)
    rss, grown = max(f.rss for f in figures), median(f.stored for f in figures)
    return f"{name:18}{wall:8.2f}{empty:8.2f}{cpu:8.2f}{rss:8.0f}{grown:8.0f}"
