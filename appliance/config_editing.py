"""The configuration file as text that a person wrote: made, and changed so that comments and order stay."""

from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

import tomlkit
from tomlkit.exceptions import TOMLKitError

from appliance import config
from proxy.errors import ConfigurationError


def new_text(repository: config.Repository, state: Path) -> str:
    """The text of a first configuration file."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Lanfree; every key is described in appliance/config*.py, OPERATING.md and STORAGE.md")
    )
    document["repository"] = repository.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    document["state"] = {"directory": str(state)}
    return tomlkit.dumps(document)


def with_host(text: str, host: config.Host) -> str:
    """The same file with one more ``[[host]]``; comments and order are kept."""
    document = tomlkit.parse(text)
    entry = tomlkit.table()
    for key, value in host.model_dump(exclude_none=True, exclude_defaults=True).items():
        entry[key] = str(value)
    hosts = document.setdefault("host", tomlkit.aot())
    hosts.append(entry)
    return tomlkit.dumps(document)


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
