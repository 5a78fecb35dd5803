"""What is said to those who ask a server for what no server does."""

from appliance.cli.app import app
from appliance.cli.commands import SERVER
from appliance.cli.remote import HERE_ONLY, REMOTE
from proxy.errors import ConfigurationError

_ANY = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

_HINT = f"run it there, without --server and {SERVER}"


def _refusing(word: str, why: str) -> None:
    @app.command(word, context_settings=_ANY, help=f"Not with --server: {why}.", hidden=True)
    def refuse() -> None:
        raise ConfigurationError("--server", f"'lanfree {word}' cannot be asked of a server: {why}", hint=_HINT)


for _word, _why in HERE_ONLY.items():
    if _word not in REMOTE:
        _refusing(_word, _why)
