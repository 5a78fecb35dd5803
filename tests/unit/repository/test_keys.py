"""Key slots: whoever has a secret gets in, nobody else does, and nobody locks himself out."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy import repository as repositories
from proxy.errors import IntegrityError, KeyRefused, RepositoryFull, RepositoryUnavailable
from proxy.repository import KeyFile, MemoryStore, Passphrase, Repository, Secret, keys, settings
from proxy.repository.keys import Slot

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FIRST = KeyFile(bytes(range(32)))
OTHER = KeyFile(bytes(range(1, 33)))
WORDS = Passphrase("correct horse battery staple")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MEMORY_KIB", 64)
    monkeypatch.setattr(keys, "PASSES", 1)


@pytest.fixture
def made(store: MemoryStore, tmp_path: Path) -> Repository:
    return repositories.create(store, secret=FIRST, chunk_size=4096, cache=tmp_path)


def opened(store: MemoryStore, secret: Secret | None, tmp_path: Path) -> Repository:
    return repositories.open(store, secret=secret, cache=tmp_path)


def add(made: Repository, secret: Secret) -> Slot:
    return keys.add_slot(made.store, made.settings, made.keyring, secret, label="another", now=NOW)


@pytest.mark.parametrize("secret", [OTHER, WORDS], ids=["key file", "passphrase"])
def test_an_added_secret_opens_the_same_repository_until_it_is_removed(
    store: MemoryStore, made: Repository, secret: Secret, tmp_path: Path
) -> None:
    with pytest.raises(KeyRefused):
        opened(store, secret, tmp_path)
    slot = add(made, secret)
    assert opened(store, secret, tmp_path).keyring == made.keyring
    keys.remove_slot(store, made.settings, slot.id, FIRST)
    with pytest.raises(KeyRefused, match="no key slot of the repository opens"):
        opened(store, secret, tmp_path)
    assert opened(store, FIRST, tmp_path).keyring == made.keyring


@pytest.mark.slow
def test_a_wrong_passphrase_is_refused_and_never_shown(store: MemoryStore, made: Repository, tmp_path: Path) -> None:
    add(made, WORDS)
    wrong = Passphrase("wrong horse")
    with pytest.raises(KeyRefused) as raised:
        opened(store, wrong, tmp_path)
    assert "horse" not in f"{raised.value} {raised.value.hint} {wrong!r} {FIRST!r}"
    assert FIRST.data.hex() not in repr(FIRST) + repr(made.keyring)


def test_an_encrypted_repository_needs_a_key_and_one_in_the_clear_refuses_any(
    store: MemoryStore, made: Repository, tmp_path: Path
) -> None:
    with pytest.raises(KeyRefused, match="no key was given"):
        opened(store, None, tmp_path)
    clear = MemoryStore()
    repositories.create(clear, secret=None, cache=tmp_path).close()
    assert list(clear.list(keys.PREFIX)) == []
    with pytest.raises(KeyRefused, match="not encrypted"):
        opened(clear, FIRST, tmp_path)


@pytest.mark.slow
def test_the_last_slot_that_one_can_open_is_not_removed(store: MemoryStore, made: Repository) -> None:
    (slot,) = keys.slots(store)
    add(made, WORDS)
    with pytest.raises(KeyRefused, match="lock"):
        keys.remove_slot(store, made.settings, slot.id, FIRST)
    with pytest.raises(KeyRefused, match="no key slot 00000000"):
        keys.remove_slot(store, made.settings, "00000000", FIRST)
    assert len(keys.slots(store)) == 2


def test_rotation_keeps_what_was_written_readable_and_seals_anew_for_one_secret(
    store: MemoryStore, made: Repository, tmp_path: Path
) -> None:
    add(made, WORDS)
    keyring, slot = keys.rotate(store, made.settings, FIRST, now=NOW)
    assert keyring.generations[0] == made.keyring.generations[0]
    assert len(keyring.generations) == keyring.newest == 2
    assert [s.id for s in keys.slots(store)] == [slot.id]
    assert opened(store, FIRST, tmp_path).keyring == keyring
    with pytest.raises(KeyRefused):
        opened(store, WORDS, tmp_path)


def test_a_rotation_that_fails_at_any_call_leaves_the_secret_in(tmp_path: Path) -> None:
    for call in range(4):
        store = MemoryStore()
        with repositories.create(store, secret=FIRST, chunk_size=4096, cache=tmp_path) as made:
            add(made, WORDS)
            store.fail_at(call)
            if call < 3:  # the new slot, and two that go
                with pytest.raises(RepositoryFull):
                    keys.rotate(store, made.settings, FIRST, now=NOW)
            else:
                keys.rotate(store, made.settings, FIRST, now=NOW)
            store.fail_at(None)
            assert opened(store, FIRST, tmp_path).keyring.newest == (1 if call == 0 else 2)


def test_rotation_ends_before_generations_run_out(store: MemoryStore, made: Repository) -> None:
    for _ in range(62):
        keys.rotate(store, made.settings, FIRST, now=NOW)
    with pytest.raises(KeyRefused, match="63 generations"):
        keys.rotate(store, made.settings, FIRST, now=NOW)


def test_paper_brings_every_generation_back_without_a_slot(
    store: MemoryStore, made: Repository, tmp_path: Path
) -> None:
    keyring, _ = keys.rotate(store, made.settings, FIRST, now=NOW)
    paper = keys.to_paper(made.settings, keyring)
    assert keys.from_paper(made.settings, "\n" + paper.lower().replace(" ", "  ")) == keyring
    for slot in keys.slots(store):
        store.delete(keys.PREFIX + slot.id)
    again = keys.from_paper(made.settings, paper)
    assert again == keyring
    keys.add_slot(store, made.settings, again, WORDS, label="recovered", now=NOW)
    assert opened(store, WORDS, tmp_path).keyring == keyring


def test_every_mistyped_letter_of_a_paper_is_noticed(made: Repository) -> None:
    paper = keys.to_paper(made.settings, made.keyring)
    for place, letter in enumerate(paper):
        if letter.isalnum():
            wrong = paper[:place] + ("B" if letter.upper() == "A" else "A") + paper[place + 1 :]
            with pytest.raises(KeyRefused):
                keys.from_paper(made.settings, wrong)
    with pytest.raises(KeyRefused, match="no keys"):
        keys.from_paper(made.settings, paper.splitlines()[0])


def test_a_paper_of_another_repository_is_refused(made: Repository, tmp_path: Path) -> None:
    other = repositories.create(MemoryStore(), secret=FIRST, cache=tmp_path)
    with pytest.raises(KeyRefused, match="does not begin"):
        keys.from_paper(made.settings, keys.to_paper(other.settings, other.keyring))


def test_a_config_that_was_exchanged_is_refused(store: MemoryStore, made: Repository, tmp_path: Path) -> None:
    other = replace(made.settings, chunk_size=8192)
    store.put(settings.NAME, settings.encode(other), new=False)
    with pytest.raises(KeyRefused, match="exchanged"):
        opened(store, FIRST, tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_kib": 1 << 40},
        {"passes": 1 << 30},
        {"lanes": 1000},
        {"passes": 0},
        {"salt": "zz"},
        {"keyring": "00"},
        {"keyring": None},
        {"version": 9},
        {"kind": "other"},
    ],
    ids=str,
)
def test_a_hostile_slot_opens_nothing_costs_nothing_and_hides_no_other(
    store: MemoryStore, made: Repository, fields: dict[str, Any], tmp_path: Path
) -> None:
    slot = add(made, WORDS)
    document = {**json.loads(store.get(keys.PREFIX + slot.id)), **fields}
    store.put(keys.PREFIX + slot.id, settings.text(document), new=False)
    store.put(keys.PREFIX + "ffffffff", b"[" * 100_000)
    with pytest.raises(KeyRefused):
        opened(store, WORDS, tmp_path)
    assert opened(store, FIRST, tmp_path)


class BadSector(MemoryStore):
    """One object cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = ""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name == self.bad:
            raise IntegrityError(f"object {name}", "the storage cannot read it")
        return super().get(name, offset, length)


def test_a_slot_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    store = BadSector()
    made = repositories.create(store, secret=FIRST, cache=tmp_path)
    store.bad = keys.PREFIX + add(made, WORDS).id
    assert opened(store, FIRST, tmp_path)
    with pytest.raises(KeyRefused):
        opened(store, WORDS, tmp_path)
    assert [slot.label for slot in keys.slots(store)] == ["first key"]


def test_a_key_file_has_32_bytes() -> None:
    assert len(keys.new_key_file()) == 32
    with pytest.raises(KeyRefused):
        KeyFile(b"short")


def test_making_a_repository_that_fails_at_any_call_leaves_none_or_one_that_opens(tmp_path: Path) -> None:
    for call in range(3):
        store = MemoryStore()
        store.fail_at(call)
        if call < 2:
            with pytest.raises(RepositoryFull):
                repositories.create(store, secret=FIRST, cache=tmp_path)
            store.fail_at(None)
            with pytest.raises(RepositoryUnavailable, match="no repository"):
                opened(store, FIRST, tmp_path)
        store.fail_at(None)
        repositories.create(store, secret=FIRST, cache=tmp_path).close()
        assert opened(store, FIRST, tmp_path)


def test_a_second_repository_in_one_place_is_refused_and_leaves_no_slot(
    store: MemoryStore, made: Repository, tmp_path: Path
) -> None:
    before = list(store.list(""))
    with pytest.raises(RepositoryUnavailable, match="already"):
        repositories.create(store, secret=OTHER, cache=tmp_path)
    assert list(store.list("")) == before
    assert made.settings.sealed
