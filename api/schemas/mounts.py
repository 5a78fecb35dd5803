"""Mount sessions: a restore point opened for its files, for a while."""

import base64
import binascii
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, SecretStr, model_validator

from api.schemas.common import Answer, Model, Reason, Refusal
from api.schemas.files import GuestVolume

# Key files have some KiB (mounter.keys.LARGEST), a third more as base64.
_LARGEST = 90_000

# More than any machine has volumes to be unlocked.
_MOST_KEYS = 64


class VolumeKey(Model):
    """Opens an encrypted volume. ``volume``: its device or UUID; empty: tried on every one. ``secret``: a passphrase or
    recovery key; ``secret_base64``: the content of a key file. Kept in the memory of the API's process alone, until the
    session is closed or has expired."""

    model_config = ConfigDict(hide_input_in_errors=True)

    volume: Annotated[str, Field(max_length=256)] = ""
    secret: Annotated[SecretStr | None, Field(min_length=1, max_length=_LARGEST)] = None
    secret_base64: Annotated[SecretStr | None, Field(min_length=1, max_length=_LARGEST)] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.secret is None) == (self.secret_base64 is None):
            raise ValueError("say either secret or secret_base64")
        self.content()
        return self

    def content(self) -> bytes:
        """The secret itself. Raises ``ValueError`` without any of it."""
        if self.secret is not None:
            return self.secret.get_secret_value().encode()
        try:
            return base64.b64decode((self.secret_base64 or SecretStr("")).get_secret_value(), validate=True)
        except (ValueError, binascii.Error):
            raise ValueError("secret_base64 is not base64") from None


class MountRequest(Model):
    """``keys``: for encrypted volumes, beside those that are kept for the machine."""

    model_config = ConfigDict(hide_input_in_errors=True)

    point: Annotated[str, Field(min_length=1, max_length=128)]
    keys: Annotated[list[VolumeKey], Field(max_length=_MOST_KEYS)] = Field(default_factory=list)


class MountState(StrEnum):
    """``opening``: ask again, it takes seconds to minutes. ``open``: answers at once. ``resting``: closed after a while
    without use; the next use opens it again. ``failed``: see ``problem``."""

    OPENING = "opening"
    OPEN = "open"
    RESTING = "resting"
    FAILED = "failed"


class Mount(Answer):
    """A mount session. ``expires_at``: when it is forgotten, with its keys, unless it is used before. ``keys``: how many were
    given with it. ``reader``: who reads the file systems, and why."""

    id: str
    point: str
    machine: str
    machine_name: str
    opened_by: str
    opened_at: datetime
    expires_at: datetime
    state: MountState
    keys: int
    problem: Refusal | None = None
    reader: Reason | None = None
    volumes: list[GuestVolume] = Field(default_factory=list)
