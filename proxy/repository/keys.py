"""Who may open a repository: key slots, each of which wraps the whole keyring for one passphrase or key file.

::

    passphrase --argon2id--> |                      |--> keyring: generation 1, 2, …, and the digest of ``config``
    key file   --BLAKE3----> | AES-256-GCM key  ----|    (``keys/<slot>`` holds it sealed)

Slots are added and removed without touching data. ``rotate`` adds a generation: what is written from then on is sealed by
it, what was written before stays as it is; only the slot that was used keeps opening, so that a key that leaked opens
nothing new. ``to_paper`` gives the keys themselves as text for a safe: it needs no slot, and a new one after a rotation.

argon2id: RFC 9106, second recommended option (64 MiB, 3 passes, 4 lanes): 0.13 s on the machine that it was measured on.
"""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from proxy.errors import FormatError, IntegrityError, KeyRefused
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository import settings
from proxy.repository.format import NONCE_BYTES
from proxy.repository.sealing import KEY_BYTES, Keyring
from proxy.repository.settings import Settings

PREFIX = "keys/"
KIND = "lanfree-key"
FILE_CONTEXT = "lanfree repository 2026 key file"

PASSES, MEMORY_KIB, LANES = 3, 64 * 1024, 4

# What a slot may ask for: storage is not trusted, and must not be able to take all memory or time of whoever opens it.
MOST_PASSES, MOST_MEMORY_KIB, MOST_LANES = 20, 1024 * 1024, 16

MOST_SLOTS = 64
"""Opening tries all slots of the secret's kind: more than anybody needs, and few enough for each to be a slow one."""

_SALT_BYTES = 16
_SLOT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What a person knows. Never logged."""

    text: str = field(repr=False)
    kind = "passphrase"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The 32 bytes of a key file: random, so no slow derivation is needed."""

    data: bytes = field(repr=False)
    kind = "key-file"

    def __post_init__(self) -> None:
        if len(self.data) != KEY_BYTES:
            raise KeyRefused(f"a key file holds {KEY_BYTES} bytes, this one {len(self.data)}")


Secret = Passphrase | KeyFile


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to open the repository. ``label`` is for people and readable by everybody who reads the storage."""

    id: str
    kind: str
    label: str
    created_at: str
    document: dict[str, Any] = field(repr=False, compare=False)


def new_key_file() -> bytes:
    """The content of a key file."""
    return secrets.token_bytes(KEY_BYTES)


def new_keyring(*, sealed: bool) -> Keyring:
    """Of a new repository."""
    return Keyring((secrets.token_bytes(KEY_BYTES),), sealed=sealed)


def add_slot(
    store: ObjectStore, config: Settings, keyring: Keyring, secret: Secret, *, label: str, now: datetime
) -> Slot:
    """Let one more secret open the repository. Raises ``KeyRefused`` when there are ``MOST_SLOTS``."""
    if len(slots(store)) >= MOST_SLOTS:
        raise KeyRefused(f"there are {MOST_SLOTS} key slots already: remove one first")
    slot = secrets.token_hex(_SLOT_BYTES)
    kdf: dict[str, Any] = {}
    if isinstance(secret, Passphrase):
        salt = secrets.token_bytes(_SALT_BYTES).hex()
        kdf = {"salt": salt, "passes": PASSES, "memory_kib": MEMORY_KIB, "lanes": LANES}
    document = {
        "format": KIND,
        "version": layout.VERSION,
        "slot": slot,
        "kind": secret.kind,
        "label": label,
        "created_at": now.isoformat(),
        **kdf,
    }
    content = {"config": _config_digest(config), "generations": [g.hex() for g in keyring.generations]}
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(_wrapping(document, secret)).encrypt(
        nonce, json.dumps(content).encode(), _bound(config, slot, document)
    )
    document["keyring"] = (nonce + sealed).hex()
    store.put(PREFIX + slot, settings.text(document))
    return Slot(slot, secret.kind, label, now.isoformat(), document)


def slots(store: ObjectStore) -> Sequence[Slot]:
    """All slots, whatever they hold: those that are damaged are left out, and open nothing. Raises ``KeyRefused`` for more
    than anybody of us makes."""
    found = []
    for number, name in enumerate(store.list(PREFIX)):
        if number == MOST_SLOTS:
            raise KeyRefused(f"it has more than {MOST_SLOTS} key slots: somebody put them there")
        try:
            document = json.loads(store.get(name))
            layout.check_version(name, document["version"])
            label, created = str(document["label"]), str(document["created_at"])
            found.append(Slot(name.removeprefix(PREFIX), str(document["kind"]), label, created, document))
        except (ValueError, KeyError, TypeError, RecursionError, FormatError, IntegrityError, FileNotFoundError):
            continue
    return found


def unlock(store: ObjectStore, config: Settings, secret: Secret) -> tuple[Keyring, Slot]:
    """The keyring, and the slot that gave it. Raises ``KeyRefused``."""
    there = slots(store)
    opened = [(ring, s) for s in there if s.kind == secret.kind and (ring := _open(config, s, secret)) is not None]
    if opened:
        # A rotation that was killed leaves two slots of one secret: the longer keyring knows all that the other does.
        return max(opened, key=lambda found: len(found[0].generations))
    kinds = ", ".join(f"{slot.kind} {slot.label}".strip() for slot in there) or "none"
    raise KeyRefused(f"no key slot of the repository opens with this {secret.kind}; there are: {kinds}")


def remove_slot(store: ObjectStore, config: Settings, slot: str, secret: Secret) -> None:
    """Take a way in away. ``secret`` must open another slot: nobody locks himself out. Raises ``KeyRefused``."""
    there = slots(store)
    if slot not in (s.id for s in there):
        raise KeyRefused(f"there is no key slot {slot}")
    others = [s for s in there if s.id != slot and s.kind == secret.kind]
    if not any(_open(config, other, secret) for other in others):
        raise KeyRefused(f"the key at hand opens no slot but {slot}: removing it would lock the repository for ever")
    store.delete(PREFIX + slot)


def rotate(store: ObjectStore, config: Settings, secret: Secret, *, now: datetime) -> tuple[Keyring, Slot]:
    """Add a generation, for this secret alone: every other slot is removed and has to be added anew.

    The new slot is there before old ones go; killed in between, both open, the old ones without the new generation.
    """
    keyring, used = unlock(store, config, secret)
    if len(keyring.generations) == layout.MAX_GENERATION:
        raise KeyRefused(f"the keyring has all of its {layout.MAX_GENERATION} generations: copy to a new repository")
    longer = Keyring((*keyring.generations, secrets.token_bytes(KEY_BYTES)))
    before = [slot.id for slot in slots(store)]
    fresh = add_slot(store, config, longer, secret, label=used.label, now=now)
    for slot in before:
        store.delete(PREFIX + slot)
    return longer, fresh


def to_paper(config: Settings, keyring: Keyring) -> str:
    """The keys as text that survives typing: 32 letters and digits without 0, 1, 8 and 9, a check a line (RFC 4648 base32)."""
    lines = [f"LANFREE REPOSITORY {config.id.hex()}"]
    for number, key in enumerate(keyring.generations, 1):
        code = base64.b32encode(key + _check(config, number, key)).decode().rstrip("=")
        groups = " ".join(code[at : at + 4] for at in range(0, len(code), 4))
        lines.append(f"KEY {number}: {groups}")
    return "\n".join(lines) + "\n"


def from_paper(config: Settings, paper: str) -> Keyring:
    """Raises ``KeyRefused`` naming the line that was mistyped, or a paper of another repository."""
    lines = [" ".join(line.upper().split()) for line in paper.splitlines() if line.strip()]
    if not lines or lines[0] != f"LANFREE REPOSITORY {config.id.hex().upper()}":
        raise KeyRefused(f"the paper does not begin with LANFREE REPOSITORY {config.id.hex()}")
    generations = []
    for number, line in enumerate(lines[1:], 1):
        code = line.removeprefix(f"KEY {number}:").replace(" ", "")
        try:
            data = base64.b32decode(code + "=" * (-len(code) % 8))
        except ValueError:
            data = b""
        key = data[:KEY_BYTES]
        if len(key) != KEY_BYTES or data[KEY_BYTES:] != _check(config, number, key):
            raise KeyRefused(f"line {number + 1} of the paper has a typing error")
        generations.append(key)
    if not generations:
        raise KeyRefused("the paper has no keys")
    return Keyring(tuple(generations))


def _check(config: Settings, number: int, key: bytes) -> bytes:
    return blake3(config.id + bytes([number]) + key).digest(3)


def _open(config: Settings, slot: Slot, secret: Secret) -> Keyring | None:
    """``None`` if the slot is another secret's, or damaged. Raises ``KeyRefused`` if ``config`` was exchanged since."""
    try:
        data = bytes.fromhex(slot.document["keyring"])
        key = _wrapping(slot.document, secret)
        plain = AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bound(config, slot.id, slot.document))
        content = json.loads(plain)
        generations = tuple(bytes.fromhex(g) for g in content["generations"])
    except (InvalidTag, KeyError, TypeError, ValueError, OverflowError, FormatError):
        return None
    if content["config"] != _config_digest(config):
        raise KeyRefused("the repository's config object was exchanged since this key slot was made")
    return Keyring(generations)


def _wrapping(document: dict[str, Any], secret: Secret) -> bytes:
    if isinstance(secret, KeyFile):
        return blake3(secret.data, derive_key_context=FILE_CONTEXT).digest()
    passes, memory, lanes = (int(document[name]) for name in ("passes", "memory_kib", "lanes"))
    if not (1 <= passes <= MOST_PASSES and 8 <= memory <= MOST_MEMORY_KIB and 1 <= lanes <= MOST_LANES):
        raise FormatError(PREFIX, "a key slot asks for more memory or time than any of ours does")
    kdf = Argon2id(
        salt=bytes.fromhex(document["salt"]), length=KEY_BYTES, iterations=passes, lanes=lanes, memory_cost=memory
    )
    return kdf.derive(secret.text.encode())


def _bound(config: Settings, slot: str, document: dict[str, Any]) -> bytes:
    """What the seal of a slot covers besides the keyring: everything."""
    plain = {key: value for key, value in document.items() if key != "keyring"}
    return config.id + slot.encode() + settings.text(plain)


def _config_digest(config: Settings) -> str:
    return blake3(settings.encode(config)).hexdigest()
