"""Opens an image inside an NBD server process of ``mounter.export``: that process needs this and nothing else of us."""

from collections.abc import Mapping
from pathlib import Path

from proxy.ports import ImageReader
from proxy.repository import PosixStore
from proxy.repository import open as open_repository


def open_image(argument: Mapping[str, str]) -> ImageReader:
    """``repository``: its directory; ``point``: id of the restore point; ``key``: the disk."""
    repository = open_repository(PosixStore(Path(argument["repository"])))
    return repository.open_image(repository.point(argument["point"]), argument["key"])
