"""Names as searches see them, and digests of paths."""

from hashlib import blake2b


def searchable(path: bytes) -> str:
    """A path as searches see it: case-folded text, what is not UTF-8 escaped as ``\\xNN``, NUL too (no database likes it).

    What is stored was made by this: a change of it needs a migration.
    """
    return path.decode(errors="backslashreplace").replace("\0", "\\x00").casefold()


def digest(path: bytes) -> bytes:
    """16 bytes that stand for a path where it would be too long itself."""
    return blake2b(path, digest_size=16).digest()


def split(path: bytes) -> tuple[bytes, bytes]:
    """Directory and name of a guest's absolute path; the root of its names is the directory ``/``."""
    directory, _, name = path.rpartition(b"/")
    return directory or b"/", name
