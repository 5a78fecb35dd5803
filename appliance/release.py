"""Which release this is."""

from importlib import metadata


def version() -> str:
    """As packages are numbered; empty where it runs from a directory that was never installed."""
    try:
        return metadata.version("lanfree")
    except metadata.PackageNotFoundError:
        return ""
