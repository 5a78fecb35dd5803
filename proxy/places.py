"""Where a disk lies, under the one name by which limits, meters and people call that place.

=====================  ==================================================================================
LUN, block device      ``naa.…`` where it is known; else ``iqn…/3``, else ``host:/dev/…``
vSphere datastore      ``site/datastore``; a mapped LUN (RDM): ``naa.…``
file                   ``host:/its/directory``; below a shared directory: that directory, for all hosts
=====================  ==================================================================================

What is served by one array under two names is two places: limits then allow more there than was meant.
"""

from collections.abc import Sequence
from pathlib import Path

from proxy.model import DeviceAddress, FileAddress, Location, LunAddress, VirtualMachine, VmdkAddress

# The word that vSphere's driver puts in the place of a datastore's kind for a disk that maps a LUN.
_MAPPED = "RDM"


def place_of(location: Location | None, host: str = "", shared: Sequence[Path] = ()) -> str:
    """Name of the place; empty where there is none (an NBD export, an unknown location). ``host``: the machine's; ``shared``:
    directories that all hosts have under the same path."""
    match location:
        case LunAddress():
            return location.name or f"{location.target}/{location.lun}"
        case DeviceAddress():
            return location.name or _on_host(location.path, host, shared)
        case FileAddress():
            return _on_host(str(Path(location.path).parent), host, shared)
        case VmdkAddress():
            if location.kind == _MAPPED and location.devices:
                return location.devices[0]
            return f"{location.site}/{location.datastore}" if location.site else location.datastore
        case _:
            return ""


def places_of(machine: VirtualMachine, shared: Sequence[Path] = ()) -> tuple[str, ...]:
    """Of all its disks, the images below them among them; sorted, each once. Disks that no backup holds count, too: they are
    not read, yet a snapshot of the machine is felt there."""
    found = {
        place_of(location, machine.host, shared) for disk in machine.disks for location in (disk.location, *disk.below)
    }
    return tuple(sorted(found - {""}))


def _on_host(path: str, host: str, shared: Sequence[Path]) -> str:
    for directory in shared:
        if Path(path).is_relative_to(directory):
            return str(directory)
    return f"{host}:{path}" if host else path
