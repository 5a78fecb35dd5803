"""The tables, typed. SCHEMA.md draws them; ``migrations/`` makes them; nothing else in Lanfree holds SQL or a model of it.

``position``: a restore point's place in its machine's history: microseconds of ``created_at`` since 1970, moved up by
one while taken. Half-open intervals of positions say in which restore points a file version is: ``[first, until)``.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# ``until`` of a version that is still in the newest indexed restore point: later than any real position.
OPEN = 2**63 - 1

# SQLite counts rows by itself only in a column that is exactly INTEGER; elsewhere row numbers need 64 bits.
_Key = BigInteger().with_variant(Integer(), "sqlite")

# Text that is compared by code points on every database: ranges of prefixes are ranges of the index then.
_Folded = Text().with_variant(Text(collation="C"), "postgresql")

# Condition of a partial index, also said literally in the query that shall use it: few restore points are held.
HELD = text("held")


class UtcTime(TypeDecorator[datetime]):
    """A moment with time zone UTC, also where the database keeps none (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Into the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Out of the database."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Of constraints and indexes, fixed, so that migrations can name them on every database."""


class Base(DeclarativeBase):
    """The catalog's tables."""

    metadata = MetaData(naming_convention=NAMES)


class MachineRow(Base):
    """A machine by its hypervisor's UUID: what hypervisors show of it, and what its restore points come to.

    ``name``, ``host``: as its hypervisor shows it, else as its newest restore point says; ``folded``: the name as lists sort it
    and searches see it. ``hypervisor``: the vCenter, or the KVM host. ``tags``: each between two newlines. ``seen_at``: when it
    was last seen, empty for one that only restore points know; ``gone_at``: since when no hypervisor shows it. ``size``: bytes
    of its disks.

    ``newest_at``, ``newest_point``, ``oldest_at``, ``points``, ``stored``: of its restore points, kept with each of them, so
    that no list counts them. ``objective``: hours; ``due_at``: ``newest_at`` and the objective. ``excluded``: why it need not
    be protected. ``failed_at``, ``failure``, ``failure_message``: of its last backup, if no restore point came after it.
    """

    __tablename__ = "machines"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    folded: Mapped[str] = mapped_column(_Folded, server_default="")
    host: Mapped[str] = mapped_column(Text)
    hypervisor: Mapped[str] = mapped_column(Text, server_default="")
    cluster: Mapped[str] = mapped_column(Text, server_default="")
    folder: Mapped[str] = mapped_column(Text, server_default="")
    tags: Mapped[str] = mapped_column(Text, server_default="")
    state: Mapped[str | None] = mapped_column(String(16))
    agent: Mapped[bool] = mapped_column(Boolean, server_default=false())
    template: Mapped[bool] = mapped_column(Boolean, server_default=false())
    size: Mapped[int] = mapped_column(BigInteger, server_default="0")
    first_seen: Mapped[datetime | None] = mapped_column(UtcTime)
    seen_at: Mapped[datetime | None] = mapped_column(UtcTime)
    gone_at: Mapped[datetime | None] = mapped_column(UtcTime)
    newest_at: Mapped[datetime | None] = mapped_column(UtcTime)
    newest_point: Mapped[str | None] = mapped_column(String(128))
    oldest_at: Mapped[datetime | None] = mapped_column(UtcTime)
    points: Mapped[int] = mapped_column(Integer, server_default="0")
    stored: Mapped[int] = mapped_column(BigInteger, server_default="0")
    objective: Mapped[float | None] = mapped_column(Float)
    due_at: Mapped[datetime | None] = mapped_column(UtcTime)
    excluded: Mapped[str] = mapped_column(Text, server_default="")
    failed_at: Mapped[datetime | None] = mapped_column(UtcTime)
    failure: Mapped[str | None] = mapped_column(String(64))
    failure_message: Mapped[str | None] = mapped_column(Text)
    jobs: Mapped[list[str]] = mapped_column(JSON, server_default="[]")
    __table_args__ = (Index(None, "folded", "id"),)


class MachineFactsRow(Base):
    """What only a page about one machine shows: its disks, and where vSphere has it."""

    __tablename__ = "machine_facts"
    machine_id: Mapped[str] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), primary_key=True)
    disks: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    pool: Mapped[str] = mapped_column(Text)
    datastores: Mapped[list[str]] = mapped_column(JSON)
    attributes: Mapped[dict[str, str]] = mapped_column(JSON)


class HypervisorRow(Base):
    """How the last look at a KVM host or a vCenter went. ``answered_at``: the last look that it answered."""

    __tablename__ = "hypervisors"
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    looked_at: Mapped[datetime | None] = mapped_column(UtcTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcTime)
    error: Mapped[str] = mapped_column(Text, server_default="")
    hint: Mapped[str] = mapped_column(Text, server_default="")


class RestorePointRow(Base):
    """What lists show of a restore point; ``reasons`` and ``hypervisor`` come from its manifest.

    ``files_indexed_at``: when its files were indexed, ``None`` before; ``index_reasons``: who read them and how. ``held``,
    ``health``, ``verified_at``: as the repository's records said when they were last looked at.
    """

    __tablename__ = "restore_points"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    machine_id: Mapped[str] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(BigInteger)
    machine_name: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    hypervisor: Mapped[str] = mapped_column(Text)
    run: Mapped[str] = mapped_column(Text)
    parent: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    sealed_at: Mapped[datetime | None] = mapped_column(UtcTime)
    level: Mapped[str] = mapped_column(String(32))
    consistency: Mapped[str] = mapped_column(String(32))
    frozen_seconds: Mapped[float] = mapped_column(Float)
    reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    files_indexed_at: Mapped[datetime | None] = mapped_column(UtcTime)
    index_reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON, server_default="[]")
    held: Mapped[bool] = mapped_column(Boolean, server_default=false())
    health: Mapped[str] = mapped_column(String(16), server_default="unknown")
    verified_at: Mapped[datetime | None] = mapped_column(UtcTime)
    __table_args__ = (
        UniqueConstraint("machine_id", "position"),
        Index(None, "created_at", "id"),
        Index(None, "level", "consistency", "created_at", "id"),
        Index("ix_restore_points_held", "id", sqlite_where=HELD, postgresql_where=HELD),
    )


class ImageRow(Base):
    """One disk in a restore point; bytes as in ``proxy.model.ImageInfo``."""

    __tablename__ = "images"
    point_id: Mapped[str] = mapped_column(ForeignKey("restore_points.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    level: Mapped[str] = mapped_column(String(32))
    transport: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(Text)
    change_id: Mapped[str | None] = mapped_column(Text)
    bytes_read: Mapped[int] = mapped_column(BigInteger)
    bytes_new: Mapped[int] = mapped_column(BigInteger)
    bytes_stored: Mapped[int] = mapped_column(BigInteger)
    index: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(Text)
    reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON)


class RunRow(Base):
    """One job run. ``state``: ``running``, ``done``, ``failed``; ``error``: the error's code, ``message`` its words."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    machine_id: Mapped[str] = mapped_column(String(64))
    machine_name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    point_id: Mapped[str | None] = mapped_column(String(128))
    error: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    __table_args__ = (Index(None, "started_at"), Index(None, "machine_id", "started_at"))


class VolumeRow(Base):
    """A volume of a machine, over all its restore points. ``name``: the mounter's id for it (a UUID where there is one)."""

    __tablename__ = "volumes"
    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    machine_id: Mapped[str] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("machine_id", "name"),)


class PointVolumeRow(Base):
    """A volume as it was in one restore point. ``problem``: why its files are not, or not all, in the index.

    ``state``: how its file system was left (``mounter.ports.VolumeState``); ``state_detail``: what was read to tell it.
    """

    __tablename__ = "point_volumes"
    point_id: Mapped[str] = mapped_column(ForeignKey("restore_points.id", ondelete="CASCADE"), primary_key=True)
    volume_id: Mapped[int] = mapped_column(ForeignKey("volumes.id", ondelete="CASCADE"), primary_key=True)
    device: Mapped[str] = mapped_column(Text)
    mountpoint: Mapped[str | None] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    label: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    problem: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), server_default="unknown")
    state_detail: Mapped[str] = mapped_column(Text, server_default="")


class NetworkVolumeRow(Base):
    """Storage that the guest used over its network in one restore point: not in the backup. ``told_by``: where it was read."""

    __tablename__ = "network_volumes"
    point_id: Mapped[str] = mapped_column(ForeignKey("restore_points.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(Text)
    mountpoint: Mapped[str] = mapped_column(Text)
    told_by: Mapped[str] = mapped_column(Text)


class PathRow(Base):
    """The path of a directory, whoever has one of that path. ``path``: the guest's as bytes, ``/`` for the root of its names.

    ``digest``: of the path, which itself can be longer than databases let an index entry be. ``folded``: as searches see it.
    """

    __tablename__ = "paths"
    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(16), unique=True)
    path: Mapped[bytes] = mapped_column(LargeBinary)
    folded: Mapped[str] = mapped_column(_Folded)


class DirectoryRow(Base):
    """A directory of a volume that ever held something."""

    __tablename__ = "directories"
    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    volume_id: Mapped[int] = mapped_column(ForeignKey("volumes.id", ondelete="CASCADE"))
    path_id: Mapped[int] = mapped_column(ForeignKey("paths.id"), index=True)
    __table_args__ = (UniqueConstraint("volume_id", "path_id"),)


class NameRow(Base):
    """A file name, whatever files have it: last part of a path as bytes, and as searches see it."""

    __tablename__ = "names"
    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    name: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    folded: Mapped[str] = mapped_column(_Folded, index=True)


class FileRow(Base):
    """A path that ever was."""

    __tablename__ = "files"
    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    directory_id: Mapped[int] = mapped_column(ForeignKey("directories.id", ondelete="CASCADE"))
    name_id: Mapped[int] = mapped_column(ForeignKey("names.id"))
    __table_args__ = (UniqueConstraint("directory_id", "name_id"), Index(None, "name_id"))


class VersionRow(Base):
    """A file as it was in the indexed restore points whose position is in ``[first, until)``.

    ``content``: digest of all that a change is seen by, so that equality is one comparison. ``volume_id`` repeats the
    file's, because the history of a machine's volumes is what indexing and deleting restore points look up.
    """

    __tablename__ = "versions"
    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    file_id: Mapped[int] = mapped_column(ForeignKey("files.id", ondelete="CASCADE"))
    volume_id: Mapped[int] = mapped_column(ForeignKey("volumes.id", ondelete="CASCADE"))
    first: Mapped[int] = mapped_column(BigInteger)
    until: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[bytes] = mapped_column(LargeBinary(16))
    type: Mapped[str] = mapped_column(String(20))
    size: Mapped[int] = mapped_column(BigInteger)
    mode: Mapped[int] = mapped_column(Integer)
    uid: Mapped[int] = mapped_column(BigInteger)
    gid: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    ctime_ns: Mapped[int] = mapped_column(BigInteger)
    inode: Mapped[int] = mapped_column(BigInteger)
    link_target: Mapped[bytes | None] = mapped_column(LargeBinary)
    __table_args__ = (
        UniqueConstraint("file_id", "first"),
        Index(None, "volume_id", "first"),
        Index(None, "volume_id", "until"),
    )
