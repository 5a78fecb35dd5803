"""Data objects of the vSphere API as JSON, and back: so that a device is saved whole, whatever kind it is.

::

    {"_type": "vim.vm.device.VirtualVmxnet3", "key": 4000, "macAddress": "00:50:56:…", …}     a data object
    {"_time": "2026-11-22T18:00:00+00:00"}     {"_bytes": "…base64…"}                          what JSON has no word for

References to managed objects are left out: their ids mean nothing in another vCenter, nor in the same one after a restore.
Reading checks what it is given: only the API's own data objects, only properties that they have.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from proxy.errors import FormatError
from proxy.hypervisor.vsphere.connection import vim, vmodl

WHAT = "machine configuration"

# Data objects within each other; the API's own go some ten levels deep.
DEEPEST = 64

_BORING = frozenset({"dynamicType", "dynamicProperty"})


def encode(value: Any) -> Any:
    """As JSON knows it. Properties that are not set are left out."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, vmodl.DynamicData):
        fields = {name: encode(getattr(value, name, None)) for name in _properties(value)}
        return {"_type": type(value).__name__, **{n: v for n, v in fields.items() if v is not None and v != []}}
    if hasattr(value, "_moId"):
        return None
    return _encode_plain(value)


def _encode_plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [one for one in map(encode, value) if one is not None]
    if isinstance(value, datetime):
        return {"_time": value.isoformat()}
    if isinstance(value, bytes):
        return {"_bytes": base64.b64encode(value).decode()}
    if isinstance(value, int):
        return int(value)  # the API's long, short and byte are classes of their own
    if isinstance(value, float):
        return float(value)
    return str(value)  # text, enumerations, URIs, names of types


def decode(saved: Any, depth: int = 0) -> Any:
    """What ``encode`` was given, references left out. Raises ``FormatError`` for anything else."""
    if depth > DEEPEST:
        raise FormatError(WHAT, "data objects lie too deep within each other")
    if isinstance(saved, list):
        return [decode(one, depth + 1) for one in saved]
    if not isinstance(saved, Mapping):
        return saved
    try:
        if "_time" in saved:
            return datetime.fromisoformat(saved["_time"])
        if "_bytes" in saved:
            return base64.b64decode(saved["_bytes"], validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        raise FormatError(WHAT, str(error)) from None
    return _decode_object(saved, depth)


def _decode_object(saved: Mapping[str, Any], depth: int) -> Any:
    kind = type_named(str(saved.get("_type") or ""))
    result = kind()
    known = set(_properties(result))
    for name, value in saved.items():
        if name == "_type":
            continue
        if name not in known:
            continue  # written with a newer description of the API than ours: what we do not know we cannot set
        try:
            setattr(result, name, decode(value, depth + 1))
        except (TypeError, ValueError, AttributeError) as error:
            raise FormatError(WHAT, f"{saved['_type']}.{name}: {error}") from None
    return result


def type_named(name: str) -> Any:
    """A data object's class by its dotted name (``vim.vm.device.VirtualDisk``). Raises ``FormatError``."""
    first, *rest = name.split(".")
    found: Any = {"vim": vim, "vmodl": vmodl}.get(first)
    for part in rest:
        found = getattr(found, part, None) if part.isidentifier() and not part.startswith("_") else None
    if not (isinstance(found, type) and issubclass(found, vmodl.DynamicData)):
        raise FormatError(WHAT, f"{name or 'an object without a type'} is no data object of the vSphere API")
    return found


def _properties(value: Any) -> list[str]:
    return [p.name for p in value._GetPropertyList() if p.name not in _BORING]
