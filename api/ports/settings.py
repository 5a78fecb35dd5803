"""What may be changed of the configuration file while the appliance runs, and how the appliance is."""

from typing import Protocol

from api.auth.roles import Caller
from api.schemas.settings import Changeable, Diagnosis, NotificationResults, Settings


class SystemSettings(Protocol):
    """Of this proxy. ``version``: the digest of the configuration file, which changes with each byte of it."""

    def get(self) -> tuple[Settings, str]:
        """What counts now, and its version. Raises ``ConfigurationError``."""
        ...

    def change(self, caller: Caller, values: Changeable, version: str) -> tuple[Settings, str]:
        """Write these values into the file; they count when this returns, and for other processes of this machine when they
        can take them. Recorded in the audit log before. Raises ``ConfigurationError``, ``Outdated`` where the file is
        another by now."""
        ...

    def shortens(self, values: Changeable) -> str:
        """What these values would let go earlier than what counts now, in words; empty for nothing."""
        ...

    def notify(self, caller: Caller, way: str | None) -> NotificationResults:
        """Send a test message, past quiet hours. Raises ``ConfigurationError`` where there is no such way."""
        ...

    def diagnose(self) -> Diagnosis:
        """Look at this machine and what is configured; takes some seconds, and is not done twice at once."""
        ...
