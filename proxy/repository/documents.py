"""Small objects as JSON: dataclasses, and back, checked against their types. The only module that imports msgspec.

Elsewhere pydantic checks what comes from outside; here every process that opens a repository would load it (with what it
brings, imports took 155 ms, and 75 with msgspec, measured; a small incremental works for 200).
"""

from typing import Any, TypeVar

import msgspec

from proxy.errors import FormatError

T = TypeVar("T")

# Of what did not fit, in an error: damaged storage may hold anything.
_SHOWN = 200


def encode(document: object) -> bytes:
    """JSON of a dataclass: fields in their order, times as ISO 8601."""
    return msgspec.json.encode(document)


def decode(kind: type[T], name: str, data: bytes, what: str) -> T:
    """The dataclass. Raises ``FormatError`` about the object ``name``, which does not hold ``what`` it should. Fields that the
    type does not know are left out: a later version may have added them."""
    return checked(kind, name, loaded(name, data, what), what)


def plain(document: object) -> Any:  # JSON
    """The dataclass as JSON has it: dictionaries, lists, numbers, texts."""
    return msgspec.to_builtins(document)


def loaded(name: str, data: bytes, what: str) -> Any:  # JSON
    """The JSON. Raises ``FormatError``."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FormatError(name, f"does not hold {what}: {str(error)[:_SHOWN]}") from None


def checked(kind: type[T], name: str, document: Any, what: str) -> T:  # JSON
    """``loaded`` as a dataclass. Raises ``FormatError``."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FormatError(name, f"does not hold {what}: {str(error)[:_SHOWN]}") from None
