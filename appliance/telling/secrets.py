"""Files with secrets of ours: addresses that hold passwords, keys for signatures."""

from pathlib import Path

from proxy.errors import ConfigurationError


def private_lines(path: Path) -> tuple[str, ...]:
    """The lines of a file that only its owner may read, without blank ones and comments (``#``), at least one. Raises
    ``ConfigurationError``, which quotes nothing of it."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(str(path), "others than its owner may read it", hint=f"chmod 600 {path}")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigurationError(str(path), f"cannot be read: {why}", hint="[[notify]] names it") from None
    lines = tuple(line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#"))
    if not lines:
        raise ConfigurationError(str(path), "says nothing", hint="write the address or the secret into it")
    return lines


def private_line(path: Path) -> str:
    """The first of them."""
    return private_lines(path)[0]
