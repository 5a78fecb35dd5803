"""What a lab keeps for the next one: the guest's images and libvirt's capabilities. Can be deleted at any time."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_directory() -> Path:
    """``$LANFREE_LAB_CACHE``, else ``lanfree/lab`` in the user's cache directory. Not made here."""
    if chosen := os.environ.get("LANFREE_LAB_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lanfree" / "lab"


def cached(key: str, build: Callable[[Path], None]) -> Path:
    """The directory ``key`` of the cache, built by ``build`` (given an empty directory) when it is not there yet.

    Appears whole or not at all; when two processes build at once, one result is kept.
    """
    place = cache_directory() / key
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=place.parent))
    try:
        build(work)
        work.rename(place)
    except OSError:
        if not place.is_dir():  # not "somebody else was faster" but a real failure
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place
