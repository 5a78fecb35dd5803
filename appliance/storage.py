"""From the ``[repository]`` section to the opened image repository. Part of the composition root, and all of it that the
processes need which serve an image (``opener.py``)."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config import S3, CopySource
from appliance.config import Repository as Section
from proxy.clock import SystemClock
from proxy.durable import create_durably
from proxy.errors import ConfigurationError, KeyRefused
from proxy.ports import Clock, ObjectStore
from proxy.repository import KeyFile, Passphrase, PosixStore, Repository, Secret, keys
from proxy.repository import create as create_repository
from proxy.repository import open as open_repository
from proxy.repository.keys import Slot
from proxy.repository.promise import retain_for
from proxy.repository.repository import check_keyring, read_settings
from proxy.repository.stores.immutable import ImmutabilityClient
from proxy.repository.stores.read_only import ReadOnlyStore

if TYPE_CHECKING:
    from proxy.repository.stores.s3 import S3Store

_PRIVATE = 0o600


def store_of(section: Section) -> ObjectStore:
    """Where the objects are. Raises ``RepositoryUnavailable``, ``ConfigurationError``."""
    kept = retain_for(span_of(section))
    if section.s3 is None:
        helper = ImmutabilityClient(section.immutable_socket, section.path) if section.immutable_socket else None
        return PosixStore(section.path, retainer=helper, retain_for=kept)
    return _bucket(section.s3, kept)


def _bucket(section: S3, kept: timedelta | None) -> "S3Store":
    # Imported when it is needed: the S3 client takes longer to load than most commands take.
    from proxy.repository.stores.s3 import S3Store  # noqa: PLC0415
    from proxy.repository.stores.s3_settings import LockMode, S3Settings  # noqa: PLC0415

    facts = section.model_dump(exclude={"lock"})
    lock = LockMode(section.lock.upper()) if section.lock else None
    return S3Store(S3Settings(**facts, lock=lock), retain_for=kept)


def span_of(section: Section) -> timedelta | None:
    """For how long after its seal a restore point cannot be deleted."""
    return None if section.immutable_days is None else timedelta(days=section.immutable_days)


def secret_of(section: Section) -> Secret | None:
    """What opens the repository; ``None`` for one that is not encrypted. Raises ``ConfigurationError``."""
    if section.unencrypted:
        return None
    if section.passphrase_file is not None:
        return passphrase_in(section.passphrase_file)
    if section.key_file is not None:
        return key_in(section.key_file)
    raise ConfigurationError(
        "[repository]",
        "says neither key_file nor passphrase_file",
        hint="name one; a repository that anybody can read has to be asked for with unencrypted = true",
    )


def passphrase_in(path: Path) -> Passphrase:
    """See ``secret_in``."""
    return Passphrase(secret_in(path))


def secret_in(path: Path) -> str:
    """The first line of a file that only its owner may read. Raises ``ConfigurationError``."""
    try:
        text = _bytes(path).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(str(path), "is no text in UTF-8", hint="write the secret there, in one line") from None
    if not text:
        raise ConfigurationError(str(path), "its first line is empty", hint="write the secret there")
    return text


def key_in(path: Path) -> KeyFile:
    """A key file, which only its owner may read. Raises ``ConfigurationError``."""
    try:
        return KeyFile(bytes.fromhex(_bytes(path).decode("ascii")))
    except (ValueError, KeyRefused):  # also bytes that are no text
        raise ConfigurationError(str(path), "is not a key file: 64 hexadecimal digits") from None


def opened(section: Section, cache: Path | None, clock: Clock | None = None) -> Repository:
    """Raises ``RepositoryUnavailable``, ``KeyRefused``, ``ConfigurationError``."""
    return open_repository(
        store_of(section), secret=secret_of(section), cache=cache, clock=clock, immutable=span_of(section)
    )


def opened_to_read(section: CopySource, cache: Path, clock: Clock | None = None) -> Repository:
    """Somebody else's repository, which stays as it is. As ``opened``."""
    store = ReadOnlyStore(store_of(section), leases=section.leases)
    return open_repository(store, secret=secret_of(section), cache=cache, clock=clock)


def made(section: Section, cache: Path, clock: Clock) -> bool:
    """Make the repository, and a key file for it if the one that is named is not there; whether it was made. One that is
    there already is opened, to see that it can be."""
    if section.s3 is None:
        section.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = store_of(section)
    if any(store.list("config")):
        opened(section, cache, clock).close()
        return False
    try_out(section)
    if section.key_file is not None and not section.key_file.exists():
        write_key_file(section.key_file)
    create_repository(store, secret=secret_of(section), label=_label(section), cache=cache, clock=clock).close()
    return True


def try_out(section: Section) -> None:
    """Whether the store can do what a repository needs. Raises ``RepositoryUnavailable``, ``ConfigurationError``."""
    if section.s3 is None:
        if section.immutable_socket is not None:
            ImmutabilityClient(section.immutable_socket, section.path).status()
        return
    with _bucket(section.s3, None) as store:
        store.check_conditional_put()


def recover(section: Section, paper: str, secret: Secret, label: str) -> Slot:
    """Let ``secret`` open a repository by what was printed for the safe. Raises ``KeyRefused``."""
    store = store_of(section)
    known = read_settings(store)
    keyring = keys.from_paper(known, paper)
    check_keyring(known, keyring)
    return keys.add_slot(store, known, keyring, secret, label=label, now=SystemClock().now())


def write_key_file(path: Path) -> None:
    """A new key, readable by its owner alone; on disk when this returns, since nothing else opens what is sealed with it.
    Raises ``ConfigurationError`` if there is a file, which is left as it is."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_durably(path, f"{keys.new_key_file().hex()}\n".encode(), mode=_PRIVATE)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be made: {error.strerror}") from None


def _label(section: Section) -> str:
    file = section.passphrase_file or section.key_file
    return file.name if file is not None else ""


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(str(path), "others than its owner may read it", hint=f"chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(
            str(path), "there is no such file", hint="bring the repository's key back, from the safe if need be"
        ) from None
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from None
