"""What is configured of a hypervisor host."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class KvmHost:
    """One hypervisor host.

    ``overlay_directory``: a path on that host where overlays and scratch files may grow; machines that migrate between
    hosts while they are backed up need it shared, under the same path. It is for Lanfree alone, and must not change while
    a snapshot is open: what lies elsewhere is not taken for an overlay of ours.
    ``overlay_reserve``: bytes that must be free there before a snapshot is made; ``None`` means a tenth of the frozen
    disks, and the whole of disks that roll (see ``overlays.needed_space``).
    ``nbd_address``: name or address at which the proxy reaches the host's NBD server in pull mode; ``None``: the host of
    the URI, or a Unix socket when the URI is local. ``tls_directory``: certificates on the proxy for that server.
    """

    name: str
    uri: str
    overlay_directory: str
    overlay_reserve: int | None = None
    tls_directory: str | None = None
    nbd_address: str | None = None

    @property
    def remote(self) -> str | None:
        """Host name in the URI, ``None`` when libvirt runs on the proxy itself."""
        return urlsplit(self.uri).hostname
