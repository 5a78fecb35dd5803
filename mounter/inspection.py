"""What runs in a machine, and where it mounts its volumes: what libguestfs' inspection makes of the guest's own files.

``g`` is the handle of the appliance (``libguestfs.py``, the only importer of ``guestfs``).
"""

from typing import Any

from mounter.containers import said
from mounter.ports import OperatingSystem


def inspected(g: Any) -> tuple[tuple[OperatingSystem, ...], dict[str, str]]:
    """What runs here, and device -> where the guest mounts it. A guest that cannot be understood has neither."""
    systems: list[OperatingSystem] = []
    mountpoints: dict[str, str] = {}
    roots: list[str] = said(g.inspect_os, [])
    for root in roots:
        kind: str = said(g.inspect_get_type, "", root)
        mounts: dict[str, str] = said(g.inspect_get_mountpoints, {}, root)
        if kind == "windows":
            drives: dict[str, str] = said(g.inspect_get_drive_mappings, {}, root)
            mounts = {f"{letter}:": device for letter, device in drives.items()} or {"C:": root}
        for mountpoint, device in mounts.items():
            if mountpoint not in mountpoints.values():  # of two systems in one machine, the first has the name
                mountpoints.setdefault(device, mountpoint)
        systems.append(_system(g, root, kind))
    return tuple(systems), mountpoints


def _system(g: Any, root: str, kind: str) -> OperatingSystem:
    major, minor = (said(f, 0, root) for f in (g.inspect_get_major_version, g.inspect_get_minor_version))
    return OperatingSystem(
        root=root,
        type=kind,
        distribution=said(g.inspect_get_distro, "", root),
        product=said(g.inspect_get_product_name, "", root),
        version=f"{major}.{minor}" if major or minor else "",
        hostname=said(g.inspect_get_hostname, "", root),
        architecture=said(g.inspect_get_arch, "", root),
        packages_format=said(g.inspect_get_package_format, "", root),
    )
