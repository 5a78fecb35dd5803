"""'I lost a file': which recorded files may be the one, the likeliest first, and which restore point has it as it was.

Somebody misses what is gone, or what became something else; of what is as it was, nobody would ask. So each file of such a name
is weighed by what became of it since, and by how well its name fits::

    deleted since   4      same name     3
    changed since   3      name holds it 2      more first; of equal ones that which was there most lately
    only later      1      folder does   0
    unchanged       0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from api.schemas.files import HoldingPoint, LostBecause, LostFile, LostFiles, LostReason
from appliance.web.file_facts import found_file
from catalog.search import Query
from catalog.text import searchable
from catalog.values import FileVersion
from proxy.model import MachineId, RestorePointId
from proxy.units import format_size

if TYPE_CHECKING:
    from catalog.unit_of_work import Unit

WEIGHED = 500
"""Files of such a name that are looked at: who types less than a few letters is asked for more by ``complete``."""

_WEIGHTS = {
    LostBecause.DELETED_SINCE: 4,
    LostBecause.CHANGED_SINCE: 3,
    LostBecause.SEEN_ONLY_LATER: 1,
    LostBecause.UNCHANGED: 0,
    LostBecause.SAME_NAME: 3,
    LostBecause.SIMILAR_NAME: 2,
    LostBecause.IN_SUCH_A_FOLDER: 0,
}


@dataclass(frozen=True, slots=True)
class _Candidate:
    taken: FileVersion
    now: FileVersion | None
    became: LostBecause
    fits: LostBecause
    last: datetime

    @property
    def weight(self) -> tuple[int, float]:
        return _WEIGHTS[self.became] + _WEIGHTS[self.fits], self.last.timestamp()


def candidates(
    unit: "Unit", machine: MachineId, called: str, name: str, *, when: datetime | None, limit: int
) -> LostFiles:
    """``api.ports.files.Files.lost``, in a reading unit."""
    query = Query(
        name,
        machines=frozenset({machine}),
        types=frozenset({"file", "directory", "symlink"}),
        all_versions=True,
        limit=WEIGHED,
    )
    found = unit.files.search(query)
    moments = _moments(unit, found.files)
    files: dict[tuple[str, bytes], list[FileVersion]] = {}
    for version in found.files:
        files.setdefault((version.volume, version.path), []).append(version)
    weighed = [_weighed(versions, name, moments, when) for versions in files.values()]
    best = sorted(weighed, key=lambda each: each.weight, reverse=True)[:limit]
    return LostFiles(
        machine=machine,
        machine_name=called,
        items=[_told(unit, each, called, when) for each in best],
        complete=found.after is None,
        unsearched=unit.files.owners.not_indexed([machine]),
    )


def _moments(unit: "Unit", versions: Sequence[FileVersion]) -> Mapping[RestorePointId, datetime]:
    ends = {version.first_point for version in versions} | {version.last_point for version in versions}
    return {each.point.id: each.point.created_at for each in unit.restore_points.several(sorted(ends))}


def _weighed(
    versions: Sequence[FileVersion], name: str, moments: Mapping[RestorePointId, datetime], when: datetime | None
) -> _Candidate:
    """One file: all its versions."""
    ordered = sorted(versions, key=lambda version: moments[version.first_point])
    now = next((version for version in ordered if not version.superseded), None)
    if when is None:
        older = [version for version in ordered if version is not now]
        taken = older[-1] if older else ordered[-1]
    else:
        then = [version for version in ordered if moments[version.first_point] <= when]
        taken = then[-1] if then else ordered[0]
        if not then:
            return _Candidate(taken, now, LostBecause.SEEN_ONLY_LATER, _fits(taken, name), moments[taken.last_point])
    became = LostBecause.CHANGED_SINCE
    if now is None:
        became = LostBecause.DELETED_SINCE
    elif taken is now:
        became = LostBecause.UNCHANGED
    return _Candidate(taken, now, became, _fits(taken, name), moments[taken.last_point])


def _fits(version: FileVersion, name: str) -> LostBecause:
    wanted = searchable(name.encode(errors="backslashreplace")).rpartition("/")[2].strip("*")
    its = searchable(version.name)
    if its == wanted:
        return LostBecause.SAME_NAME
    return LostBecause.SIMILAR_NAME if wanted in its else LostBecause.IN_SUCH_A_FOLDER


def _told(unit: "Unit", each: _Candidate, called: str, when: datetime | None) -> LostFile:
    points = unit.restore_points.several(list(unit.files.holding(each.taken)) or [each.taken.last_point])
    by_time = sorted(points, key=lambda listed: listed.point.created_at)
    before = [listed for listed in by_time if when is None or listed.point.created_at <= when]
    point = (before or by_time[:1])[-1].point
    later = f"the restore points after {each.last:%Y-%m-%d %H:%M} UTC"
    words = {
        LostBecause.DELETED_SINCE: f"it is in none of {later}",
        LostBecause.CHANGED_SINCE: _changed(each),
        LostBecause.UNCHANGED: "the newest restore point has it as it was",
        LostBecause.SEEN_ONLY_LATER: f"it was first seen at {by_time[0].point.created_at:%Y-%m-%d %H:%M} UTC",
        LostBecause.SAME_NAME: "it has exactly this name",
        LostBecause.SIMILAR_NAME: "its name holds what was asked for",
        LostBecause.IN_SUCH_A_FOLDER: "it lies in a folder of such a name",
    }
    return LostFile(
        file=found_file(each.taken, called),
        point=HoldingPoint(id=point.id, created_at=point.created_at),
        now=None if each.now is None else found_file(each.now, called),
        reasons=[LostReason(code=code, detail=words[code]) for code in (each.became, each.fits)],
    )


def _changed(each: _Candidate) -> str:
    if each.now is None:
        return ""
    return f"it was changed after it: {format_size(each.taken.size)} then, {format_size(each.now.size)} now"
