"""What a collection tells: the report, and the tally that becomes one."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Item:
    """A stored object, its bytes, and why it goes or went."""

    object: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A doom that is not carried out yet."""

    doom: str
    why: str


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did, or with ``dry_run`` would do. Bytes are those of stored objects.

    ``doomed``: packs and indexes that nobody needs; they go with a later call. ``compacted``: packs that were rewritten, doomed
    too; ``moved``: bytes written for that (at most, in a dry run). ``deleted``: gone now. ``kept``: doomed, and needed again:
    indexes stay, packs were copied. ``waiting``: dooms of which nothing was deleted yet. ``cleaned``: small things.
    ``missing``: ids of chunks that are in no pack at all (hexadecimal); while there are any, nothing is deleted.
    """

    dry_run: bool
    points: int = 0
    doomed: tuple[Item, ...] = ()
    compacted: tuple[Item, ...] = ()
    moved: int = 0
    deleted: tuple[Item, ...] = ()
    kept: tuple[Item, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    cleaned: tuple[Item, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def freed(self) -> int:
        """Bytes of what was deleted (would be)."""
        return sum(item.bytes for item in self.deleted)

    @property
    def promised(self) -> int:
        """Bytes that come back with a later call: of what is doomed now, less what was written anew."""
        return sum(item.bytes for item in (*self.doomed, *self.compacted)) - self.moved


@dataclass(slots=True)
class Tally:
    """The report in the making; see there."""

    dry_run: bool
    points: int = 0
    moved: int = 0
    doomed: list[Item] = field(default_factory=list)
    compacted: list[Item] = field(default_factory=list)
    deleted: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    cleaned: list[Item] = field(default_factory=list)
    missing: set[bytes] = field(default_factory=set)

    def report(self) -> CollectReport:
        """As it stands."""
        return CollectReport(
            dry_run=self.dry_run,
            points=self.points,
            doomed=tuple(self.doomed),
            compacted=tuple(self.compacted),
            moved=self.moved,
            deleted=tuple(self.deleted),
            kept=tuple(self.kept),
            waiting=tuple(self.waiting),
            cleaned=tuple(self.cleaned),
            missing=tuple(sorted(chunk.hex() for chunk in self.missing)),
        )
