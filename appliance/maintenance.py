"""What keeps a repository in shape, over the parts in ``Services``: deletion, retention, collection, copies, audits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from appliance import config, operations, storage
from appliance.wiring import Services
from proxy.errors import ConfigurationError, DeleteRefused, LanfreeError, ObjectRetained, RestorePointNotFound
from proxy.model import RestorePoint, RestorePointId
from proxy.repository import Repository
from proxy.repository.checking.audit import audit, heads
from proxy.repository.checking.chain import Finding
from proxy.repository.checking.witness import (
    FileWitness,
    HttpWitness,
    MailWitness,
    Note,
    Witness,
    read_notes,
    shown_address,
    write_note,
)
from proxy.repository.collection.retention import Decision, PointFacts, Policy, decide
from proxy.repository.ledger import machine_of
from proxy.repository.parallel import each
from proxy.repository.records import Health


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention says of one restore point. ``removed``: it is gone; ``why``: the rules that keep it, or what kept it
    from being deleted."""

    point: RestorePointId
    machine: str
    machine_name: str
    keep: bool
    removed: bool
    why: str


def delete_point(services: Services, name: RestorePointId, why: str) -> tuple[RestorePoint, str]:
    """Delete one restore point; also what went wrong with the catalog. Raises ``DeleteRefused`` for a machine's last good
    one and for what is held."""
    found = services.repository.point(name)
    return found, _delete(services, found, why)


def prune(services: Services, *, apply: bool, told: Callable[[str], None]) -> list[Pruned]:
    """Decide by the configured policy, and delete with ``apply`` what no rule keeps, oldest first. What cannot be deleted
    is told and stays; the others go on."""
    lines: list[Pruned] = []
    for point, decision in retention(services):
        removed, why = False, str(decision)
        if apply and not decision.keep:
            try:
                remark = _delete(services, point, f"retention: {why}")
                removed = True
                if remark:
                    told(remark)
            except (DeleteRefused, ObjectRetained, RestorePointNotFound) as error:
                why = error.message
        lines.append(Pruned(point.id, point.machine, point.machine_name, decision.keep, removed, why))
    return lines


def retention(services: Services) -> Sequence[tuple[RestorePoint, Decision]]:
    """What the configured policy says of each restore point now; the same for the preview and for the deed."""
    repository = services.repository
    points, damaged = repository.survey()
    incomplete = {machine_of(each.object) for each in damaged}
    ledger = repository.ledger
    stand = standings(services, points)
    details = [lease.holder.detail if lease.holder else "" for lease in repository.leases.living()]

    def facts(point: RestorePoint) -> PointFacts:
        return PointFacts(
            id=point.id,
            machine=point.machine,
            created_at=point.created_at,
            held=stand[point.id].held,
            in_use=any(point.id in detail for detail in details),
            health=stand[point.id].health,
            listed_whole=machine_of(ledger.name(point)) not in incomplete,
        )

    policy = Policy(**services.settings.retention.model_dump())
    decided = decide([facts(point) for point in points], policy, services.clock.now())
    by_id = {point.id: point for point in points}
    return [(by_id[decision.point.id], decision) for decision in decided]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a restore point stands: its last verification (``unknown``: there was none), and whether it is held."""

    health: Health
    verified_at: datetime | None
    held: bool

    def __str__(self) -> str:
        judged = f"{self.health.value} {self.verified_at:%Y-%m-%d}" if self.verified_at else "-"
        return f"{judged}, held" if self.held else judged


def standings(services: Services, points: Iterable[RestorePoint]) -> Mapping[RestorePointId, Standing]:
    """For listings: two looks at the store, and one for each point that was verified."""
    ledger = services.repository.ledger
    held, judged = ledger.holds.names(), ledger.verifications.names()

    def standing(point: RestorePoint) -> tuple[RestorePointId, Standing]:
        name = ledger.name(point)
        known = ledger.health(point) if name in judged else None
        health, verified_at = (known.health, known.verified_at) if known else (Health.UNKNOWN, None)
        return point.id, Standing(health, verified_at, name in held)

    return dict(each(standing, points))


def _delete(services: Services, point: RestorePoint, why: str) -> str:
    services.repository.ledger.delete(point, why)
    return operations.in_catalog(services, lambda unit: unit.restore_points.remove(point.id))


@contextmanager
def copy_repository(services: Services, name: str, *, make: bool = False) -> Iterator[Repository]:
    """The second repository of this name, opened; made if it is not there and ``make`` was said."""
    section = next((each for each in services.settings.copy_to if each.name == name), None)
    if section is None:
        known = ", ".join(each.name for each in services.settings.copy_to) or "none"
        raise ConfigurationError(name, f"no [[copy_to]] of this name; there are: {known}")
    cache = services.settings.state.directory / "cache"
    if make:
        storage.made(section, cache, services.clock)
    with storage.opened(section, cache, services.clock) as repository:
        yield repository


@dataclass(frozen=True, slots=True)
class Audit:
    """``findings``: what does not fit; ``notes``: how many notes of witnesses were compared; ``unreadable``: what is wrong with
    others, which prove nothing (a crash cuts lines off; a witness may be one that is only written to); ``published``:
    witnesses that took the heads; ``unpublished``: witnesses that did not, and why."""

    findings: tuple[Finding, ...]
    notes: int
    unreadable: tuple[str, ...]
    published: tuple[str, ...]
    unpublished: tuple[str, ...]

    @property
    def tampered(self) -> bool:
        """Whether anything was found that does not happen to honest repositories."""
        return any(not finding.trouble.notice for finding in self.findings)


def audited(services: Services, noted: Sequence[Path], *, publish: bool) -> Audit:
    """Compare every machine's chain with itself and with what witnesses noted; then let them note the heads, unless
    something was found. Raises ``ConfigurationError`` for one of ``noted`` that cannot be read."""
    repository = services.repository
    notes, wrong = _notes(services, noted)
    known = [head for note in notes for head in note.heads]
    result = Audit(tuple(audit(repository, known)), len(notes), tuple(wrong), (), ())
    if not publish or result.tampered:
        return result
    line = write_note(repository, heads(repository))
    took, refused = [], []
    for section in services.settings.witness:
        try:
            _witness(section).publish(line)
            took.append(_place(section))
        except LanfreeError as error:
            refused.append(f"{_place(section)}: {error.message}")
    return replace(result, published=tuple(took), unpublished=tuple(refused))


def _notes(services: Services, noted: Sequence[Path]) -> tuple[list[Note], list[str]]:
    """Notes about this repository in the files that a person named and in those of the witnesses, and what is wrong with
    others."""
    settings = services.repository.settings
    notes: list[Note] = []
    wrong: list[str] = []
    for path in dict.fromkeys([*noted, *(w.file for w in services.settings.witness if w.file is not None)]):
        try:
            read, bad = read_notes(path, settings.public_key)
        except OSError as error:
            if path in noted:
                raise ConfigurationError(str(path), f"cannot be read: {error.strerror or error}") from None
            if not isinstance(error, FileNotFoundError):  # else nothing was noted yet
                wrong.append(f"{path}: nothing noted here can be read: {error.strerror or error}")
            continue
        notes += [note for note in read if note.repository == settings.id.hex()]
        wrong += bad
    return notes, wrong


def _witness(section: config.Witness) -> Witness:
    if section.file is not None:
        return FileWitness(section.file)
    if section.url is not None:
        return HttpWitness(section.url, token=storage.secret_in(section.token_file) if section.token_file else "")
    return MailWitness(
        section.mail_host, section.sender, section.recipient or "", port=section.mail_port, starttls=section.starttls
    )


def _place(section: config.Witness) -> str:
    return shown_address(section.url) if section.url is not None else str(section.file or section.recipient)
