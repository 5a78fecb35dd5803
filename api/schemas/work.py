"""What can be asked for: each becomes a task. Everything has a default that is right for most."""

from typing import Annotated

from pydantic import Field

from api.schemas.common import Model, Moment
from proxy.model import QuiescePolicy

_MANY = 1000
"""Names in one order: more is what a job is for."""

_Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=_MANY)]


class BackupOrder(Model):
    """Protect a machine now. ``full``: read everything (only what differs is stored anyway). ``quiesce``: null as
    configured. ``exclude``: keys of disks to leave out. ``index``: record its files afterwards; null as configured."""

    full: bool = False
    quiesce: QuiescePolicy | None = None
    exclude: _Names = ()
    index: bool | None = None


class VerificationOrder(Model):
    """Read back and check. ``points``: these restore points; all where none is named and no ``machines`` are. ``share`` of
    the packs (of all points only), the longest unread first. ``deep``: also decompress every chunk and compare its id;
    without, every byte that changed since it was stored is found just as well."""

    points: _Names = ()
    machines: _Names = ()
    share: float = Field(1.0, gt=0, le=1)
    deep: bool = True


class PruneOrder(Model):
    """Delete what no rule keeps, then give its space back. ``repository``: name of a ``[[copy_to]]``; ours where it is
    empty. ``dry_run``: delete nothing, and say of each restore point which rules keep it, or do not."""

    repository: str = Field("", max_length=200)
    dry_run: bool = False


class CollectionOrder(Model):
    """Give back the space that no restore point needs, in two phases: what one call finds goes with a later one."""

    repository: str = Field("", max_length=200)
    dry_run: bool = False


class CopyOrder(Model):
    """Copy restore points to a ``[[copy_to]]`` (``to``) or from a ``[[copy_from]]`` (``source``): exactly one of them.
    ``machines``, ``points``, ``newest`` (of each machine), ``since``: only those. ``read_back``: compare each copy
    before it counts."""

    to: str = Field("", max_length=200)
    source: str = Field("", max_length=200)
    machines: _Names = ()
    points: _Names = ()
    newest: int | None = Field(None, ge=1)
    since: Moment | None = None
    read_back: bool = False


class RepairOrder(Model):
    """Verify our own repository and mend what is damaged with the ``[[copy_to]]`` of the name ``repository``. ``point``: only
    this restore point; all where it is empty."""

    repository: str = Field(min_length=1, max_length=200)
    point: str = Field("", max_length=200)


class AuditOrder(Model):
    """Look for restore points that were removed or altered by somebody without the key: signatures, chains, notes of
    witnesses. ``publish``: let the configured witnesses note the newest ones, unless something is found."""

    publish: bool = False


class ProtectionOrder(Model):
    """Protect the appliance itself: its configuration, keys, passwords and databases into the repository and every
    ``[[copy_to]]``."""


class CatalogRebuildOrder(Model):
    """Make the catalog again from the repository. ``files``: also record the files of all restore points."""

    files: bool = True


class SweepOrder(Model):
    """Look on all hosts for what dead runs left there, and remove it."""


class IndexingOrder(Model):
    """Record the files of restore points. None named: of all whose files are not recorded."""

    points: _Names = ()


class MeasurementOrder(Model):
    """Measure what a repository holds: unique, stored and dead bytes, by machine. Reads all its indexes."""

    repository: str = Field("", max_length=200)
