"""What keeps storage from reading or forging anything: keys derived from the keyring, and everything that they seal.

A **keyring** is a list of 32-byte generations. The first one keys ids, digests, names and the signature for ever, so that
deduplication goes on; the newest one seals what is written from now on::

    generation 1 ──derive──> ids of chunks, digests of images, digests of objects, names of machines, signing key
    generation n ──derive──> chunk sealing ──keyed by the chunk's id──> one AES key a chunk
                 └─derive──> object sealing ─keyed by the object's name> one AES key an object

One key a chunk, with a random nonce: no key seals more than a handful of messages, and sealed bytes depend on nothing but
the chunk, so collection moves them as they are. In a repository in the clear there is one generation, which lies in
``config``; it keys ids and digests, and nothing is sealed.

AES-256-GCM: NIST SP 800-38D. BLAKE3 key derivation and keyed mode: the BLAKE3 paper, sections 2.3 and 6. Ed25519: RFC 8032.
All methods may be called from any thread.
"""

import secrets
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.errors import FormatError
from proxy.repository import format as layout
from proxy.repository.format import CLEAR, DIGEST_BYTES, HEADER, NAME_BYTES, NONCE_BYTES, TAG_BYTES
from proxy.repository.scratch import forget

CHUNK_CONTEXT = "lanfree repository 2026 chunk id"
IMAGE_CONTEXT = "lanfree repository 2026 image digest"
OBJECT_CONTEXT = "lanfree repository 2026 object digest"
MACHINE_CONTEXT = "lanfree repository 2026 machine name"
SIGNING_CONTEXT = "lanfree repository 2026 signing key"
CHUNK_SEALING_CONTEXT = "lanfree repository 2026 chunk sealing"
OBJECT_SEALING_CONTEXT = "lanfree repository 2026 object sealing"

KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Keyring:
    """The repository's secret. ``generations``: oldest first, 32 bytes each. ``sealed``: whether they seal, or only key."""

    generations: tuple[bytes, ...] = field(repr=False)
    sealed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.generations) <= layout.MAX_GENERATION or any(
            len(g) != KEY_BYTES for g in self.generations
        ):
            raise FormatError("keyring", f"has {len(self.generations)} generations, or keys of a wrong length")

    @property
    def newest(self) -> int:
        """Generation that seals what is written now; ``CLEAR`` in a repository in the clear."""
        return len(self.generations) if self.sealed else CLEAR


def _derive(secret: bytes, context: str) -> bytes:
    return blake3(secret, derive_key_context=context).digest()


class Keys:
    """Keys for each use, so that no digest of one kind serves as another."""

    __slots__ = ("_chunk_sealing", "_object_sealing", "chunk", "image", "machine", "newest", "object", "signing")

    def __init__(self, keyring: Keyring) -> None:
        root = keyring.generations[0]
        self.chunk = _derive(root, CHUNK_CONTEXT)
        self.image = _derive(root, IMAGE_CONTEXT)
        self.object = _derive(root, OBJECT_CONTEXT)
        self.machine = _derive(root, MACHINE_CONTEXT)
        self.signing = Ed25519PrivateKey.from_private_bytes(_derive(root, SIGNING_CONTEXT))
        self.newest = keyring.newest
        sealing = keyring.generations if keyring.sealed else ()
        self._chunk_sealing = [_derive(g, CHUNK_SEALING_CONTEXT) for g in sealing]
        self._object_sealing = [_derive(g, OBJECT_SEALING_CONTEXT) for g in sealing]

    @property
    def public(self) -> bytes:
        """The key that checks signatures."""
        return self.signing.public_key().public_bytes_raw()

    def seal_chunk(self, chunk: bytes, data: bytes | memoryview, out: memoryview) -> None:
        """Fill ``out``, which is a seal longer than ``data``, with nonce, ciphertext and tag of what is to be stored for the
        chunk of this id."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        out[:NONCE_BYTES] = nonce
        self._chunk_cipher(chunk, self.newest).encrypt_into(nonce, data, None, out[NONCE_BYTES:])

    def unseal_chunk(self, chunk: bytes, generation: int, stored: bytes | memoryview, out: memoryview) -> None:
        """Fill ``out``, which has the stored length less the seal. Raises ``FormatError`` if a bit of the stored bytes
        changed, or if they were sealed for another chunk; then ``out`` holds nothing that may be used."""
        view = memoryview(stored)
        cipher = self._chunk_cipher(chunk, generation)
        try:
            cipher.decrypt_into(view[:NONCE_BYTES], view[NONCE_BYTES:], None, out)
        except (InvalidTag, ValueError):
            raise FormatError("chunk", "the stored bytes changed: they do not fit their seal") from None

    def object_cipher(self, name: bytes, generation: int) -> AESGCM:
        """Of one object, by the 16 bytes that name it in its header."""
        return AESGCM(blake3(name, key=self._of(self._object_sealing, generation)).digest())

    def _chunk_cipher(self, chunk: bytes, generation: int) -> AESGCM:
        return AESGCM(blake3(chunk, key=self._of(self._chunk_sealing, generation)).digest())

    @staticmethod
    def _of(keys: list[bytes], generation: int) -> bytes:
        if not 1 <= generation <= len(keys):
            raise FormatError(
                "key",
                f"generation {generation} is not in the keyring, which has {len(keys)}: open the repository again",
            )
        return keys[generation - 1]


class Sealer:
    """Boxes for small objects: bound to the object's name, authenticated, encrypted where the repository is, and signed
    where asked. FORMAT.md draws them."""

    def __init__(self, repository: bytes, chunk_size: int, keys: Keys) -> None:
        self._repository = repository
        self._chunk_size = chunk_size
        self._keys = keys

    def box(self, magic: bytes, name: str, plain: bytes, *, sign: bool = False) -> bytes:
        """The object's bytes. ``magic``: 8 bytes that tell what kind of object it is."""
        own = _own_name(name)
        head = layout.header(magic, self._keys.newest, self._chunk_size, self._repository, own)
        if self._keys.newest == CLEAR:
            body = plain + blake3(head, key=self._keys.object).update(plain).digest()
        else:
            nonce = secrets.token_bytes(NONCE_BYTES)
            body = nonce + self._keys.object_cipher(own, self._keys.newest).encrypt(nonce, plain, head)
        return head + body + (self._keys.signing.sign(head + body) if sign else b"")

    def unbox(self, magic: bytes, name: str, data: bytes, *, signed: bool = False) -> bytes:
        """What was put in. Raises ``FormatError`` for damage, forgery, another kind, or another object's content."""
        generation, own = layout.check_header(name, data, magic, self._chunk_size, self._repository)
        if own != _own_name(name):
            raise FormatError(name, "carries another object's name")
        if (generation == CLEAR) is not (self._keys.newest == CLEAR):
            raise FormatError(name, "is in the clear in a sealed repository, or the other way round")
        if signed:
            data, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
            check_signature(name, self._keys.public, data, signature)
        head, body = data[: HEADER.size], data[HEADER.size :]
        if generation == CLEAR:
            plain, digest = body[:-DIGEST_BYTES], body[-DIGEST_BYTES:]
            if blake3(head, key=self._keys.object).update(plain).digest() != digest:
                raise FormatError(name, "its digest does not fit: it was damaged or changed by hand")
            return plain
        try:
            return self._keys.object_cipher(own, generation).decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], head)
        except FormatError as error:
            raise FormatError(name, error.message) from None
        except (InvalidTag, ValueError):
            raise FormatError(name, "its seal does not fit: it was damaged or changed") from None


def check_signature(name: str, public: bytes, data: bytes, signature: bytes) -> None:
    """Raises ``FormatError`` unless the repository signed the data. Needs no secret."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise FormatError(name, "its signature does not fit: the repository's key did not make it") from None


def _own_name(name: str) -> bytes:
    return blake3(name.encode()).digest(NAME_BYTES)


# Index bodies are sealed in blocks, so that neither side holds one whole: smaller would add tags, larger memory.
BLOCK = 1 << 20

# Blocks of which the pages are kept while an index is sealed: 4 MiB of each side.
_KEPT = 4

SALT_BYTES = 8
"""Beginning of the nonces of an object that is sealed in blocks. The object's key seals nothing else, but for a damaged index
that is written again under its name (``repair.py``): other bytes with the same key must not have the same nonces."""


def seal_blocks(keys: Keys, name: bytes, plain: memoryview, out: memoryview) -> None:
    """A salt, then block after block, sealed into ``out``, which has ``sealed_size`` bytes. A block's nonce is the salt and
    its number: blocks can be neither exchanged nor left out without being noticed."""
    cipher = keys.object_cipher(name, keys.newest)
    salt = secrets.token_bytes(SALT_BYTES)
    out[:SALT_BYTES] = salt
    at = SALT_BYTES
    for number, start in enumerate(range(0, len(plain), BLOCK)):
        block = cipher.encrypt(_nonce(salt, number), plain[start : start + BLOCK], None)
        out[at : at + len(block)] = block
        at += len(block)
        if number % _KEPT == 0:
            forget(plain)
            forget(out)


def unseal_block(what: str, cipher: AESGCM, salt: bytes, number: int, block: bytes | memoryview) -> bytes:
    """One block. Raises ``FormatError``."""
    try:
        return cipher.decrypt(_nonce(salt, number), block, None)
    except (InvalidTag, ValueError):
        raise FormatError(what, f"the seal of its block {number} does not fit: it was damaged or truncated") from None


def sealed_size(plain: int) -> int:
    """Bytes that a body of ``plain`` bytes takes when it is sealed in blocks."""
    return SALT_BYTES + plain + -(-plain // BLOCK) * TAG_BYTES


def _nonce(salt: bytes, block: int) -> bytes:
    return salt + block.to_bytes(NONCE_BYTES - SALT_BYTES, "little")
