"""What the size of a restore point is due to."""

from pydantic import Field

from api.schemas.common import Answer, Bytes


class FileShare(Answer):
    """Bytes of changed chunks that are a file's. ``guessed``: told by names and sizes that differ, not by blocks."""

    path: str
    path_id: str = Field(description="The exact name, as for `/restore-points/{point}/files`.")
    bytes: Bytes
    guessed: bool = False


class DirectoryShare(Answer):
    """Bytes of changed chunks that are of a directory and all below it; those of one device begin with its name."""

    path: str
    bytes: Bytes


class SizeExplanation(Answer):
    """``changed``: bytes of all chunks that are not as in ``base`` (null: there is none before it, all data counts). ``parts``
    add up to it. ``exact``: changed blocks within chunks were told apart. ``files``, ``directories``: the largest. ``notes``:
    what limits the answer."""

    point: str
    base: str | None = None
    changed: Bytes
    exact: bool
    parts: dict[str, int]
    files: tuple[FileShare, ...] = ()
    directories: tuple[DirectoryShare, ...] = ()
    notes: tuple[str, ...] = ()
