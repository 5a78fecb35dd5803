"""Servers that this user signed in to: whom to trust there, and the token that says who asks. One file of the user's own, 0600,
as SSH keeps hosts and keys.

``$LANFREE_TOKEN_FILE`` names a file with a token for programs that never sign in; it goes before what is kept.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from appliance.storage import secret_in
from proxy.errors import ConfigurationError

TOKEN_FILE = "LANFREE_TOKEN_FILE"  # noqa: S105  # the variable's name
SERVER = "LANFREE_SERVER"


@dataclass(frozen=True, slots=True)
class Known:
    """A server. ``authority``: PEM that a person trusted, ``None`` where the system's own authorities vouch for it.
    ``token``: secret; ``token_id``: what the server calls it."""

    authority: str | None = None
    token: str | None = None
    token_id: str | None = None


class Servers:
    """The file. Read anew at each call: other processes write it too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, url: str) -> Known:
        """What is known of this server; nothing, of one that was never signed in to."""
        return self._read().get(name_of(url), Known())

    def keep(self, url: str, known: Known) -> None:
        """From now on."""
        self._write({**self._read(), name_of(url): known})

    def forget(self, url: str) -> Known:
        """What was known of it."""
        servers = self._read()
        gone = servers.pop(name_of(url), Known())
        self._write(servers)
        return gone

    def _read(self) -> dict[str, Known]:
        try:
            document = json.loads(self._path.read_bytes())
            return {name: Known(**known) for name, known in document.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            raise ConfigurationError(
                str(self._path), "damaged", hint="remove it, then 'lanfree login' to each server again"
            ) from None

    def _write(self, servers: dict[str, Known]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump({name: asdict(known) for name, known in servers.items()}, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self._path)


def servers() -> Servers:
    """Those of the user who runs this."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Servers(Path(home) / "lanfree" / "servers.json")


def name_of(url: str) -> str:
    """``host:port`` in lower case: one server, however its address was written."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower()}:{parts.port or 443}"


def token_for(known: Known) -> str | None:
    """The token to send, if there is one. Raises ``ConfigurationError`` for a token file that is not there, or that others may
    read."""
    named = os.environ.get(TOKEN_FILE)
    return known.token if named is None else secret_in(Path(named))
