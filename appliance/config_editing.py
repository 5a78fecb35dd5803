"""The configuration file as text that a person wrote: made, and changed so that comments and order stay."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT

from appliance import config
from appliance.config_section import Section
from proxy.errors import ConfigurationError

Kind = Literal["host", "vcenter"]
"""Sections of which each names a hypervisor."""


def new_text(repository: config.Repository, state: Path) -> str:
    """The text of a first configuration file."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Lanfree; every key is described in appliance/config*.py, OPERATING.md and STORAGE.md")
    )
    document["repository"] = repository.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    document["state"] = {"directory": str(state)}
    return tomlkit.dumps(document)


def with_hypervisor(text: str, kind: Kind, section: Section) -> str:
    """The same file with one more ``[[host]]`` or ``[[vcenter]]``; comments and order are kept."""
    document = tomlkit.parse(text)
    entry = tomlkit.table()
    for key, value in section.model_dump(mode="json", exclude_none=True, exclude_defaults=True).items():
        entry[key] = value
    document.setdefault(kind, tomlkit.aot()).append(entry)
    return tomlkit.dumps(document)


def without_hypervisor(text: str, kind: Kind, name: str) -> str:
    """The same file without the ``[[host]]`` or ``[[vcenter]]`` of this name; comments and order of the rest are kept."""
    document = tomlkit.parse(text)
    entries = document.get(kind, ())
    for number in reversed([at for at, entry in enumerate(entries) if entry.get("name") == name]):
        del entries[number]
    if not entries and kind in document:
        del document[kind]
    return tomlkit.dumps(document)


def with_values(text: str, values: Mapping[tuple[str, ...], Any]) -> str:
    """The same file with these values: ``{("limits", "per_host"): 4}``; ``None`` takes a key away, so that its default holds.
    Comments and order are kept; a list of sections (``("coverage", "accept")``) is written as ``[[coverage.accept]]``."""
    document = tomlkit.parse(text)
    for place, value in values.items():
        *sections, key = place
        table: Any = document
        for section in sections:
            if section not in table:
                if value is None:
                    break
                table[section] = tomlkit.table()
            table = table[section]
        else:
            if value is None:
                table.pop(key, None)
            else:
                table[key] = _item(value)
    return tomlkit.dumps(document)


def _item(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        entries: AoT = tomlkit.aot()
        for each in value:
            entry = tomlkit.table()
            entry.update(each)
            entries.append(entry)
        return entries
    return value


def with_places(text: str, *, repository: Path | None = None, state: Path | None = None) -> str:
    """The same file with other places for the repository and the state; comments and order are kept."""
    document = tomlkit.parse(text)
    for section, key, place in (("repository", "path", repository), ("state", "directory", state)):
        if place is not None:
            document.setdefault(section, tomlkit.table())[key] = str(place)
    return tomlkit.dumps(document)


def without_addresses(configuration: bytes, source: Path) -> bytes:
    """The same file, where no address of a witness or of a way to people has more than its host: hooks of chat services have
    their secret in the path, others in the query. Raises ``ConfigurationError`` for a file that is no TOML."""
    try:
        document = tomlkit.parse(configuration.decode())
    except (UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigurationError(str(source), f"not valid TOML: {type(error).__name__}") from None
    changed = False
    for name in ("witness", "notify"):
        for entry in document.get(name, ()):
            url = entry.get("url") if isinstance(entry, MutableMapping) else None
            if isinstance(url, str) and _host_of(url) != url:
                entry["url"], changed = _host_of(url), True
    return tomlkit.dumps(document).encode() if changed else configuration


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    path = parts.path if parts.scheme == "unix" else "/" if parts.path else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
