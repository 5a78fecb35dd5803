"""Small files that are there after a power cut: the bytes are synced, and so is the directory that names them.

``fsync`` of a file alone promises its bytes and not its name; a rename that was not synced may come back undone.
"""

import os
from functools import partial
from pathlib import Path


def replace_durably(path: Path, data: bytes) -> None:
    """Put ``data`` there, whole or not at all, in place of what was there. Raises ``OSError``; then the old file stands.

    One writer at a time: it is written beside it first, as ``<name>.new``.
    """
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        _write(file.fileno(), data)
    draft.replace(path)
    sync_directory(path.parent)


def create_durably(path: Path, data: bytes, *, mode: int) -> None:
    """A new file with these permissions. Raises ``FileExistsError`` if there is one, which is left as it is; ``OSError``."""
    with open(path, "xb", opener=partial(os.open, mode=mode)) as file:
        _write(file.fileno(), data)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Names that were made, replaced or removed in it stay so. Raises ``OSError``."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)
