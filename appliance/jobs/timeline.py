"""A plan as lines over time: how many of a host's backups are under way in each of its columns. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from appliance.jobs.planner import Entry, Plan


def end_of(made: Plan, now: datetime) -> datetime:
    """Where the line ends: with the last backup, and not before the next minute."""
    return max(*(entry.end for entry in made.entries), now + timedelta(minutes=1), now)


def by_host(made: Plan) -> Mapping[str, Sequence[Entry]]:
    """Its entries, by host, in the order of the hosts' names."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in made.entries:
        found[entry.item.host].append(entry)
    return dict(sorted(found.items()))


def busy(entries: Sequence[Entry], begin: datetime, step: timedelta, columns: int) -> list[float]:
    """For each column of ``step``: how many are under way at once, on average."""
    found = [0.0] * columns
    for entry in entries:
        first, last = (entry.begin - begin) / step, (entry.end - begin) / step
        for column in range(int(first), min(int(last) + 1, columns)):
            found[column] += max(min(last, column + 1) - max(first, column), 0.0)
    return found
