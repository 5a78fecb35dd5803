"""Opens an image inside an NBD server process of ``mounter.export``: that process needs this and nothing else of us."""

from collections.abc import Mapping
from typing import Any

from appliance import storage
from appliance.config import Repository
from proxy.ports import ImageReader


def open_image(argument: Mapping[str, Any]) -> ImageReader:
    """``repository``: the section of the configuration (it names files with secrets, and holds none); ``point``: id of the
    restore point; ``key``: the disk."""
    repository = storage.opened(Repository.model_validate(argument["repository"]), cache=None)
    return repository.open_image(repository.point(argument["point"]), argument["key"])
