"""Where catalog, access log, jobs and workflow records are: SQLite files in the state directory, or one PostgreSQL database."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config import Settings
from proxy.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from catalog.database import Password

# Connections for workflow records. Each run that goes on, and whoever waits for one, looks there several times a second.
_WORKFLOW_CONNECTIONS = 20


def catalog_url(settings: Settings) -> str:
    """For ``Catalog`` and ``JobStore``."""
    return settings.database.url or f"sqlite:///{settings.state.directory / 'catalog.db'}"


def workflow_url(settings: Settings) -> str:
    """For the engine, which keeps its tables in a schema of its own (``dbos``) in PostgreSQL."""
    return settings.database.url or f"sqlite:///{settings.state.directory / 'workflows.db'}"


def password(settings: Settings) -> "Password | None":
    """Reads the password each time it is asked for; ``None`` where no file is named. Raises ``ConfigurationError`` then."""
    file = settings.database.password_file
    return None if file is None else partial(first_line, file, "[database] password_file")


def workflow_engine(settings: Settings) -> "Engine | None":
    """Connections for the engine where a server is configured, so that it is told no password; ``None`` for SQLite."""
    if settings.database.url is None:
        return None
    from catalog.database import open_engine  # noqa: PLC0415  # SQLAlchemy takes longer to load than most commands take

    return open_engine(settings.database.url, password=password(settings), connections=_WORKFLOW_CONNECTIONS)


def first_line(path: Path, key: str) -> str:
    """A secret out of a file that only its owner reads. ``key``: of the configuration. Raises ``ConfigurationError``."""
    where = f"{key} {path}"
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(where, "others than its owner may read it", hint=f"chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(where, getattr(error, "strerror", None) or "it is not UTF-8") from None
    if not lines or not lines[0]:
        raise ConfigurationError(where, "it is empty", hint="its first line is the secret")
    return lines[0]
