"""Ways to people: each delivers one message, or says why not. ``made`` knows which section is which."""

from appliance.telling.settings import Notify
from appliance.telling.ways.way import Message, Way

__all__ = ["Message", "Way", "made"]


def made(section: Notify) -> Way:
    """Nothing is read or connected before the first message. Libraries are loaded by the way that needs them."""
    if section.kind == "webhook":
        from appliance.telling.ways.webhook import Webhook  # noqa: PLC0415

        return Webhook(section)
    if section.kind == "syslog":
        from appliance.telling.ways.syslog import Syslog  # noqa: PLC0415

        return Syslog(section)
    from appliance.telling.ways.chat import Chat  # noqa: PLC0415

    return Chat(section)
