"""How an index run is told: what was recorded, how, and what the run noticed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from proxy.model import ReasonCode
from proxy.units import format_size

if TYPE_CHECKING:
    from appliance.indexing import IndexReport


def told(report: "IndexReport") -> Iterator[str]:
    """Lines for people: the files, then a line for each volume, then storage that no restore point holds."""
    yield f"{report.point}: {report.entries} entries recorded{_metadata(report)}"
    for reason in report.reasons:
        if reason.code is not ReasonCode.QUIESCED_BUT_DIRTY:
            yield f"  {reason.code.value}{': ' if reason.detail else ''}{reason.detail}"
    for volume in report.not_protected:
        where = f" at {volume.mountpoint}" if volume.mountpoint else ""
        yield f"  not protected by this backup: {volume.kind} {volume.source}{where} ({volume.told_by})"


def warnings(report: "IndexReport") -> Iterator[str]:
    """What needs attention: volumes that could not be read, and those that were quiesced and are dirty."""
    yield from (f"{report.point}: {problem}" for problem in report.problems)
    for reason in report.reasons:
        if reason.code is ReasonCode.QUIESCED_BUT_DIRTY:
            yield f"{report.point}: quiesced, and yet not clean: {reason.detail}"


def _metadata(report: "IndexReport") -> str:
    if not report.metadata_total:
        return ""
    read, whole = format_size(report.metadata_read), format_size(report.metadata_total)
    return f"; {read} of {whole} metadata read"
