"""What keeps a repository in shape, over the parts in ``Services``: the other repositories, how restore points stand, audits.
Deletion and retention are in ``pruning.py``, copies in ``copying.py``, verification in ``verifying.py``."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from appliance import config, storage
from appliance.wiring import Services
from proxy.errors import ConfigurationError, LanfreeError, RepositoryUnavailable
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
from proxy.repository.ledger import place_of
from proxy.repository.parallel import each
from proxy.repository.records import Health


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
    """Of points of our own repository, see ``standings_in``."""
    return standings_in(services.repository, points)


def standings_in(repository: Repository, points: Iterable[RestorePoint]) -> Mapping[RestorePointId, Standing]:
    """For listings: two looks at the store, and one for each point that was verified."""
    ledger = repository.ledger
    held, judged = ledger.holds.names(), ledger.verifications.names()

    def standing(point: RestorePoint) -> tuple[RestorePointId, Standing]:
        name = ledger.name(point)
        known = ledger.health(point) if name in judged else None
        health, verified_at = (known.health, known.verified_at) if known else (Health.UNKNOWN, None)
        return point.id, Standing(health, verified_at, name in held)

    return dict(each(standing, points))


@contextmanager
def copy_repository(services: Services, name: str, *, make: bool = False) -> Iterator[Repository]:
    """The second repository of this name, opened; made if it is not there and ``make`` was said. Raises
    ``RepositoryUnavailable`` also for another one than it was until now: where a mount was lost there may be one."""
    section = _named(services.settings.copy_to, name, "copy_to")
    cache = services.settings.state.directory / "cache"
    made = make and storage.made(section, cache, services.clock)
    with storage.opened(section, cache, services.clock) as repository:
        _remember(services, name, repository, made=made)
        yield repository


def remembered_copy(services: Services, name: str) -> str:
    """Identity of the repository that the ``[[copy_to]]`` of this name is, since it was first opened; empty before. Nobody but
    a person makes another one in its place."""
    return (services.shared.get(_record(name)) or b"").decode("ascii", "replace")


def _remember(services: Services, name: str, repository: Repository, *, made: bool) -> None:
    identity, known = repository.settings.id.hex(), remembered_copy(services, name)
    if known and known != identity and not made:
        raise RepositoryUnavailable(
            place_of(repository.store),
            f"it is repository {identity}, and {name} was {known} until now",
            hint="is the right one mounted? If this one is meant from now on, give the [[copy_to]] another name",
        )
    if known != identity:
        services.shared.put(_record(name), identity.encode())


def _record(name: str) -> str:
    """People choose the name; records have names of few letters."""
    return f"copies/{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@contextmanager
def source_repository(services: Services, name: str) -> Iterator[Repository]:
    """The other site's repository of this name, opened to be read."""
    section = _named(services.settings.copy_from, name, "copy_from")
    cache = services.settings.state.directory / "cache"
    with storage.opened_to_read(section, cache, services.clock) as repository:
        yield repository


@contextmanager
def opened(services: Services, repository: str) -> Iterator[Repository]:
    """Our own repository, or the ``[[copy_to]]`` of this name."""
    if not repository:
        yield services.repository
        return
    with copy_repository(services, repository) as second:
        yield second


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


Section = TypeVar("Section", config.CopyRepository, config.CopySource)


def _named(sections: Sequence[Section], name: str, kind: str) -> Section:
    section = next((each for each in sections if each.name == name), None)
    if section is None:
        known = ", ".join(each.name for each in sections) or "none"
        raise ConfigurationError(name, f"no [[{kind}]] of this name; there are: {known}")
    return section
