"""Overlays: where they are, the space they need, and the way back.

The way back never deletes what may still be needed::

    merge    vda -> overlay -> LUN     overlay's blocks are written to the LUN (block commit)
    note     the run's record says that the overlay is about to leave the chain because it was merged
    pivot    vda -> LUN                the machine writes to the LUN again
    confirm  no chain, live or saved, on any host, names the overlay, and no image of ours rests on it
    delete   overlay

That no chain names an overlay is no proof that it was merged: a definition without it may have been put in, or the
machine be gone to a host that is none of ours. Only what was seen merged or is in the note is deleted.

A machine that is off (shut down, or its emulator was killed) is started with stopped processors and nothing but its
disks for the merge, and stopped again: libvirt has no other way that works on a remote host. libvirt ends that helper
by itself if the proxy dies.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from proxy.errors import HypervisorError, MachineBusy, NoSpaceForOverlay, SnapshotInUse
from proxy.hypervisor.kvm import define
from proxy.hypervisor.kvm.answers import Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.inventory import DomainXml, domain, parse
from proxy.hypervisor.kvm.ownership import Ownership, run_in
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import FileAddress, PowerState, RunId
from proxy.units import MiB

# Space that must be free before a snapshot, as a part of the frozen disks: what a busy guest rewrites while its backup
# runs. A tenth is the field's rule of thumb; less risks a full file system and a stopped guest.
RESERVE_PART = 10
RESERVE_LEAST = 64 * MiB

# Passes over a chain before we give up: each pass that finds an overlay merges it, so more than a few mean that
# something else keeps interfering.
PASSES = 4

# A merge without progress for this many seconds is left to the next sweep, which takes it up where it is. Arrays that
# fail over are back within a few minutes; a shorter limit would give up on those.
STALL = 600.0

# A pivot is refused while the guest has just written again. At one try in half a second this is minutes.
PIVOT_TRIES = 600

# How often a block job is asked, in seconds: quick at first, since most merges take a fraction of a second.
POLL_FIRST = 0.02
POLL_LAST = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """An overlay of ours in a chain. ``top``: the machine writes to it. ``rolling``: it was made to stay on."""

    run: RunId
    key: str
    path: str
    top: bool
    rolling: bool = False


Which = Callable[[Sequence[Found]], Sequence[Found]]
"""Chooses from all our overlays in a machine's chains, disk by disk and top first, those that are to be merged."""

Note = Callable[[Found], None]
"""Told of an overlay before the step that ends its merge: the pivot, or below the top (QEMU ends that itself) the start."""


def found_in(machine: DomainXml, owned: Ownership) -> list[Found]:
    """Our overlays in all chains of a definition, disk by disk, top first."""
    out = []
    for disk in machine.disks:
        for depth, link in enumerate(disk.chain):
            where = link.location
            run = owned.run_of(where.path) if isinstance(where, FileAddress) else None
            if run is not None and link.path:
                out.append(Found(run, disk.key, link.path, top=depth == 0, rolling=owned.rolls(link.path)))
    return out


def found_on(place: Domain, *, inactive: bool = False) -> list[Found]:
    """Our overlays in the chains of a machine, as it runs now or as it is defined for its next start."""
    return found_in(domain(place.xml(inactive=inactive)), place.host.owned)


def snapshot_xml(run: RunId, overlays: dict[str, str], keys: Iterable[str]) -> str:
    """``<domainsnapshot>`` for the overlays (key -> path); every other disk of the machine is left alone."""
    parts = []
    for key in keys:
        if key in overlays:
            path = quoteattr(overlays[key])
            parts.append(
                f"<disk name={quoteattr(key)} snapshot='external' type='file'>"
                f"<driver type='qcow2'/><source file={path}/></disk>"
            )
        else:
            parts.append(f"<disk name={quoteattr(key)} snapshot='no'/>")
    return f"<domainsnapshot><name>lanfree-{run}</name><disks>{''.join(parts)}</disks></domainsnapshot>"


def needed_space(host: KvmHost, sizes: Iterable[int], rolling: int = 0) -> int:
    """Bytes that must be free for overlays of disks of these sizes; ``rolling``: what rolling overlays may yet take."""
    if host.overlay_reserve is not None:
        return host.overlay_reserve
    return max(RESERVE_LEAST, sum(sizes) // RESERVE_PART) + rolling


def guard_space(host: Host, sizes: Iterable[int], rolling: int = 0) -> None:
    """Raises ``NoSpaceForOverlay`` while there still is some."""
    needed = needed_space(host.settings, sizes, rolling)
    free = Directory(host, host.settings.overlay_directory).free()
    if free < needed:
        raise NoSpaceForOverlay(f"{host.name}:{host.settings.overlay_directory}", free, needed)


def merge(place: Domain, which: Which, note: Note) -> list[Found]:
    """Merge overlays into what lies below. What was seen to be merged; nothing is deleted here.

    Raises ``HypervisorError`` when they are still there in the end, ``MachineBusy`` while somebody else's block job runs.
    """
    tried: dict[str, Found] = {}
    ended: set[str] = set()
    for _ in range(PASSES):
        live = list(which(found_on(place)))
        power = place.state().power
        if not live:
            # What runs tells its own chain. A machine that stopped in mid-merge tells what somebody may have defined since.
            runs = power in (PowerState.RUNNING, PowerState.PAUSED)
            return [found for found in tried.values() if runs or found.path in ended]
        tried.update((f.path, f) for f in live)
        if power is PowerState.SUSPENDED:
            raise HypervisorError(
                f"merge overlays of {place.machine}",
                "its memory was saved to disk, and the saved state names the overlay",
                hint="start the machine; the overlay is merged at the next run",
            )
        if power is PowerState.OFF:
            merge_off(place.host, define.helper(place.xml(inactive=True)), live, note)
            ended |= {f.path for f in live}
        else:
            ended |= _merge_running(place, live, note)
    raise HypervisorError(f"merge overlays of {place.machine}", "they are still in its chains")


def merge_off(host: Host, helper: str, overlays: Sequence[Found], note: Note) -> None:
    """Merge with a helper that has the machine's disks and stopped processors. Raises unless the pivot is seen."""
    place = host.create_paused(helper)
    try:
        _merge_running(place, overlays, note)
        left = {f.path for f in found_on(place)} & {f.path for f in overlays}
        if left:
            raise HypervisorError(f"merge overlays of {place.machine}", f"{', '.join(sorted(left))} still in its chain")
    finally:
        # The emulator is asked to end and flushes dirty bitmaps into the images while it does.
        with suppress(Refused):
            place.destroy()


def delete_files(host: Host, paths: Iterable[str], known: Sequence[Domain]) -> None:
    """Delete those merged overlays that no chain of the machine names any more; what is not there is fine.

    ``known``: the machine where it is now, then where else. What an overlay of ours rests on is left, for a merge into what
    lies below would have moved that overlay down. Raises ``HypervisorError`` when it is one that the machine runs on: a
    definition need not tell the whole chain.
    """
    chains = [found_on(place, inactive=saved) for place in known for saved in (False, True)]
    gone = set(paths) - {found.path for chain in chains for found in chain}
    if not gone:
        return
    running = {found.path for found in chains[0]} if chains else set()
    below = _backings(host, gone | running)
    if any(below.get(path) in gone for path in running):
        what = f"delete merged overlays of {known[0].machine}"
        raise HypervisorError(what, f"{', '.join(sorted(running))} still rests on one of them")
    for path in sorted(gone - set(below.values())):
        directory, _, name = path.rpartition("/")
        Directory(host, directory).delete(name)


def _backings(host: Host, paths: Iterable[str]) -> dict[str, str | None]:
    """What each overlay of ours in the directories of these files says that it rests on."""
    out = {}
    for path in {path.rpartition("/")[0] for path in paths}:
        directory = Directory(host, path)
        images = directory.images(lambda name: run_in(name) is not None)
        out.update({f"{directory.path}/{name}": image.backing for name, image in images.items()})
    return out


def mend_definition(place: Domain, which: Which) -> bool:
    """Take merged overlays out of the definition for the next start, where a migration left them. Whether it did."""
    text = place.xml(inactive=True, secrets=True)
    merged = {found.path for found in which(found_in(domain(text), place.host.owned))}
    if not place.persistent() or not merged:
        return False
    place.host.define(define.without_overlays(text, merged.__contains__))
    return True


def foreign_job(text: str, key: str) -> bool:
    """Whether a live definition shows a block copy on the disk that is no merge of its top layer."""
    for disk in parse(text).findall("devices/disk"):
        target, mirror = disk.find("target"), disk.find("mirror")
        if target is not None and target.get("dev") == key and mirror is not None:
            return mirror.get("job") != "active-commit"
    return False


def _merge_running(place: Domain, overlays: Sequence[Found], note: Note) -> set[str]:
    """The lowest first: then the others stay what and where they are. Those whose pivot was seen."""
    pivoted = set()
    for found in reversed(overlays):
        if foreign_job(place.xml(), found.key):
            raise MachineBusy(place.machine, f"a block copy of disk {found.key}")
        if not found.top:
            note(found)
        if place.job(found.key) is None:
            _begin(place, found)
        if _finish_job(place, found, note):
            pivoted.add(found.path)
    return pivoted


def _begin(place: Domain, found: Found) -> None:
    """Raises ``SnapshotInUse`` while a reader of a base that is a file holds QEMU's lock on it."""
    try:
        place.commit(found.key, None if found.top else found.path)
    except Refused as error:
        if error.refusal is Refusal.LOCKED:
            raise SnapshotInUse(place.machine) from None
        raise


def _finish_job(place: Domain, found: Found, note: Note) -> bool:
    """Wait for the merge; for the top layer switch over when both are equal, and whether this was done. Returns early if
    the machine stops."""
    pause, refusals = POLL_FIRST, 0
    seen, since = (-1, -1), time.monotonic()
    while True:
        job = _job(place, found.key)
        if job is None:
            return False
        if job != seen:
            seen, since = job, time.monotonic()
        elif time.monotonic() - since > STALL:
            why = f"no progress for {STALL:g} s"
            raise HypervisorError(f"merge {found.path}", why, hint="look at the array; the merge goes on when it does")
        done, end = job
        if found.top and end > 0 and done == end:
            note(found)
            try:
                place.pivot(found.key)
            except Refused as error:
                refusals += 1
                if error.refusal is Refusal.OTHER or refusals > PIVOT_TRIES:
                    raise
            else:
                return True
        time.sleep(pause)
        pause = min(POLL_LAST, pause * 1.5)


def _job(place: Domain, key: str) -> tuple[int, int] | None:
    try:
        return place.job(key)
    except Refused as error:
        if error.refusal in (Refusal.NOT_RUNNING, Refusal.NO_DOMAIN):
            return None  # it was stopped in mid-merge: the next pass finds it off
        raise
