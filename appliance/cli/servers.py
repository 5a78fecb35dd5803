"""Servers that this user signed in to: whom to trust there, and the token that says who asks. One file of the user's own, 0600,
as SSH keeps hosts and keys.

``$LANFREE_TOKEN_FILE`` names a file with a token for programs that never sign in; it goes before what is kept.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from appliance.storage import secret_in
from proxy.durable import create_durably, sync_directory
from proxy.errors import ConfigurationError

TOKEN_FILE = "LANFREE_TOKEN_FILE"  # noqa: S105  # the variable's name


@dataclass(frozen=True, slots=True)
class Known:
    """A server. ``authority``: PEM that a person trusted, ``None`` where the system's own authorities vouch for it.
    ``token``: secret; ``token_id``: what the server calls it."""

    authority: str | None = None
    token: str | None = None
    token_id: str | None = None


class Servers:
    """The file. Read anew at each call: other processes write it too, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, url: str) -> Known:
        """What is known of this server; nothing, of one that was never signed in to."""
        return self._read().get(name_of(url), Known())

    def keep(self, url: str, known: Known) -> None:
        """From now on."""
        with self._alone():
            self._write({**self._read(), name_of(url): known})

    def forget(self, url: str) -> Known:
        """What was known of it."""
        with self._alone():
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

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two logins at once would each keep their own token and lose the other's."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, servers: dict[str, Known]) -> None:
        """Only when alone."""
        draft = self._path.with_name(f".{self._path.name}.new")
        draft.unlink(missing_ok=True)  # of a command that was killed: it holds tokens, too
        text = json.dumps({name: asdict(known) for name, known in servers.items()}, indent=1)
        create_durably(draft, text.encode(), mode=0o600)
        draft.replace(self._path)
        sync_directory(self._path.parent)


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
