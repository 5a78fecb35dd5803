"""What every section of the configuration file is, and what several of them check."""

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen. An unknown key is refused: it is a typing error that would otherwise be found at 3 am."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def without_user(url: str | None, instead: str) -> str | None:
    """The same. Raises ``ValueError`` for one with a user or a password in it; ``instead``: what to do."""
    try:
        known = url is not None and "@" in urlsplit(url).netloc
    except ValueError:
        return url  # whoever sends to it refuses it, without quoting it
    if known:
        raise ValueError(f"the url holds a user or a password: {instead}")
    return url
