"""Who asks which server, and for what."""

from urllib.parse import quote

from api.client import Client
from api.trust import place_of
from appliance.cli.servers import servers, token_for
from proxy.errors import ConfigurationError


def client_of(url: str) -> Client:
    """As this user, who signed in there before. Raises ``ConfigurationError``, also for an address without TLS: the token would
    be everybody's on the way."""
    place_of(url)
    known = servers().of(url)
    token = token_for(known)
    if token is None:
        raise ConfigurationError(
            f"server {url}", "you are not signed in there", hint=f"run 'lanfree login {url}', or set LANFREE_TOKEN_FILE"
        )
    return Client(url, token=token, authority=known.authority)


def at(*parts: str) -> str:
    """The path of a resource. What people type as a name is that name and nothing else: ``nightly#2`` is not ``nightly``."""
    return "".join(f"/{quote(part, safe='', errors='surrogateescape')}" for part in parts)
