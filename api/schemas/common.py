"""What several resources say."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from proxy import model

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, strip_whitespace=True)]
"""Of something that people name."""

Bytes = Annotated[int, Field(ge=0, description="Bytes.")]

Why = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
"""What a person gives as the reason; recorded, and shown to whoever asks."""


Plain = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
"""What a filter compares with: databases take no NUL."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("this moment is beyond the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""What callers say of times: with a time zone, and in UTC from here on, which nothing behind has to look after."""


class Model(BaseModel):
    """Base of what the API takes: a field that nobody knows is refused, since it was meant to do something."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """Base of what the API gives. Clients ignore fields that they do not know: later versions add some."""

    model_config = ConfigDict(frozen=True)


class Reason(Answer):
    """Why something is as it is: ``code`` for machines, ``detail`` for people (may be empty)."""

    code: model.ReasonCode
    detail: str = ""

    @classmethod
    def of(cls, reason: model.Reason) -> Self:
        """The domain's."""
        return cls(code=reason.code, detail=reason.detail)

    @classmethod
    def all_of(cls, reasons: Iterable[model.Reason]) -> list[Self]:
        """Several."""
        return [cls.of(reason) for reason in reasons]


class MachineRef(Answer):
    """A machine by identity, and its name when this was written down."""

    id: str
    name: str


class Refusal(Answer):
    """Why something would not be done, in the words of problems: ``code`` for programs, ``hint``: what to do about it."""

    code: str
    message: str
    hint: str = ""
