"""Names of users: lower case, so that nobody is mistaken for another."""

import re

from proxy.errors import ConfigurationError

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


def clean_name(name: str, *, new: bool = False) -> str:
    """As it is kept. Raises ``ConfigurationError`` for a ``new`` one that cannot be a name."""
    cleaned = name.strip().lower()
    if new and not is_name(cleaned):
        raise ConfigurationError(
            "name",
            "cannot be the name of a user",
            hint="1 to 64 letters a-z, digits, and . _ @ + - ; the first is a letter or a digit",
        )
    return cleaned


def is_name(name: str) -> bool:
    """Whether a clean one can be a name."""
    return _NAME.fullmatch(name) is not None
