"""Which object names there are: short words of safe characters between slashes."""

import re

from proxy.errors import FormatError

# No dot at the beginning of a word: "..", hidden files and temporary files can never be named.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
LONGEST = 200


def check_name(name: str) -> str:
    """The name itself, or ``FormatError``: an object name can never lead out of its repository."""
    if len(name) > LONGEST or _NAME.fullmatch(name) is None:
        raise FormatError("object name", repr(name[:LONGEST]))
    return name
