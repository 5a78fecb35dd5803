"""What can go wrong below the SAN transport. Subclasses of the project's tree, so nothing has to be translated to leave.

::

    TransportError
    ├── LoginFailed      the portal, the target or CHAP did not let us in (machine-readable reason)
    ├── SessionLost      the session is gone, with it everything that was outstanding: go on with another one
    └── CommandFailed    the device answered, and the answer was no
"""

from enum import StrEnum

from proxy.errors import TransportError
from proxy.transport.iscsi.scsi import Outcome


class LoginReason(StrEnum):
    """Why there is no session."""

    UNREACHABLE = "portal-unreachable"
    CHAP = "chap-rejected"
    NO_TARGET = "target-unknown"
    REFUSED = "login-refused"


HINTS = {
    LoginReason.UNREACHABLE: "check the portal's address, the storage network, and that the target runs",
    LoginReason.CHAP: "check chap_user and chap_secret_file of the [[san.target]]; the array must know the same secret",
    LoginReason.NO_TARGET: "check the iqn of the [[san.target]]; the array must present it to this proxy's initiator name",
    LoginReason.REFUSED: "check that the array allows this proxy's initiator name and address",
}


class LoginFailed(TransportError):
    """No session with a portal. ``reason``: a ``LoginReason``."""

    code = "san-login"

    def __init__(self, target: str, portal: str, reason: LoginReason, why: str) -> None:
        super().__init__(f"login to {target} at {portal}: {why}", hint=HINTS[reason])
        self.reason = reason


class SessionLost(TransportError):
    """A session died; its outstanding commands were given up and nothing writes into their buffers any more."""

    code = "san-session-lost"

    def __init__(self, portal: str, why: str) -> None:
        super().__init__(f"session with {portal} lost: {why}", hint="check the path to the array")
        self.why = why


class CommandFailed(TransportError):
    """A device refused a command. ``outcome`` has status and sense."""

    code = "san-command"

    def __init__(self, device: str, what: str, outcome: Outcome) -> None:
        super().__init__(f"{what} on {device}: {outcome}")
        self.outcome = outcome


class CommandForbidden(Exception):
    """Our own code tried to send a command that its session may not send: a defect here, never the outside's fault."""

    def __init__(self, cdb: bytes, why: str) -> None:
        super().__init__(f"SCSI operation code {cdb[0]:#04x}: {why}")
