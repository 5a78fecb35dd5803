"""Pages and reports that are written as templates. What goes into them is escaped, and a name that is not there is an error."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_NONE: Mapping[str, Callable[..., Any]] = MappingProxyType({})


class Templates:
    """Those of one directory. ``filters``: beside Jinja's own."""

    def __init__(self, directory: Path, filters: Mapping[str, Callable[..., Any]] = _NONE) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(directory),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(filters)

    def rendered(self, name: str, /, **facts: object) -> str:
        """The text of one."""
        return self._environment.get_template(name).render(**facts)


@cache
def templates_in(directory: Path) -> Templates:
    """Kept for the life of the process."""
    return Templates(directory)
