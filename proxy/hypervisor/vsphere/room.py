"""Room for what a guest writes while its snapshot exists, looked for before: a full datastore stops all machines on it."""

from collections.abc import Iterable

from proxy.errors import NoSpaceForOverlay
from proxy.hypervisor.vsphere.devices import Datastore
from proxy.hypervisor.vsphere.looking import Look
from proxy.model import Disk, PowerState, VmdkAddress
from proxy.units import MiB

# Space that must be free before a snapshot, as a part of the disks that get deltas on a datastore: what a busy guest rewrites
# while its backup runs. A tenth is the field's rule of thumb. A machine that is off only needs the deltas' own metadata.
PART = 10
LEAST = 64 * MiB

HINT = "free space on the datastore, or move the machine to a larger one"


def guard(seen: Look, disks: Iterable[Disk], datastores: Iterable[Datastore]) -> tuple[str, ...]:
    """Names of the datastores that the deltas will lie on: beside each disk that a snapshot holds. Raises
    ``NoSpaceForOverlay``."""
    stores = {store.name: store for store in datastores}
    sizes: dict[str, int] = {}
    for disk in disks:
        if disk.excluded is None and isinstance(disk.location, VmdkAddress):
            sizes[disk.location.datastore] = sizes.get(disk.location.datastore, 0) + disk.size
    for name, size in sizes.items():
        needed = max(LEAST, size // PART) if seen.state is PowerState.RUNNING else LEAST
        store = stores.get(name)
        if store is not None and store.free < needed:
            raise NoSpaceForOverlay(f"datastore {name}", store.free, needed, hint=HINT)
    return tuple(sorted(sizes))
