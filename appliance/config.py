"""The configuration file: TOML in, frozen settings out. Each default has its unit, its reason and when to change it.

Looked for at ``--config``, then ``$LANFREE_CONFIG``, then ``/etc/lanfree/lanfree.toml``. Secrets are never in it, only the
names of files that hold them.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import ConfigurationError
from proxy.model import QuiescePolicy
from proxy.units import MiB

DEFAULT_PATH = Path("/etc/lanfree/lanfree.toml")
DEFAULT_STATE = Path("/var/lib/lanfree/state")
DEFAULT_REPOSITORY = Path("/var/lib/lanfree/repository")


class _Section(BaseModel):
    # An unknown key is a typing error that would otherwise be found at 3 am.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Repository(_Section):
    """Where restore points go."""

    path: Path = DEFAULT_REPOSITORY


class State(_Section):
    """Catalog, workflow records, locks. Local disk, not NFS: SQLite and flock want a real one."""

    directory: Path = DEFAULT_STATE


class Host(_Section):
    """A libvirt host. ``overlay_directory``: path on that host for guest writes during a backup; shared by hosts among
    which machines migrate. ``overlay_reserve``: bytes that must be free there; a tenth of the disks where it is not said.
    ``nbd_address``, ``tls_directory``: how to reach its NBD server over the LAN, and the proxy's certificate for that."""

    name: str
    uri: str
    overlay_directory: str = "/var/lib/libvirt/images/lanfree"
    overlay_reserve: Annotated[int, Field(ge=0)] | None = None
    nbd_address: str | None = None
    tls_directory: Path | None = None


class Target(_Section):
    """An iSCSI target as the proxy reaches it; see proxy/transport/SAN.md."""

    iqn: str
    portals: Annotated[tuple[str, ...], Field(min_length=1)]
    initiator: str = "iqn.2026-11.org.lanfree:proxy"
    chap_user: str = ""
    chap_secret_file: Path | None = None
    presents: tuple[str, ...] = ()
    access: Literal["backup", "restore"] = "backup"


class San(_Section):
    target: tuple[Target, ...] = ()


class Raw(_Section):
    """Directories and devices that hosts and proxy see under the same path."""

    shared_directories: tuple[Path, ...] = ()


class Backup(_Section):
    """``workers``: parallel read-hash-store threads a disk. Four keep two cores busy while others wait for the array; more
    cores take more. ``transports``: in order of preference; leave ``lan`` out to fail rather than load the hosts."""

    workers: Annotated[int, Field(ge=1, le=64)] = 4
    segment: Annotated[int, Field(ge=MiB // 4, le=64 * MiB)] = MiB
    transports: tuple[Literal["san", "raw", "lan"], ...] = ("san", "raw", "lan")
    quiesce: QuiescePolicy = QuiescePolicy.PREFER


class Settings(_Section):
    """All of it. ``source`` is the file it came from."""

    source: Path
    repository: Repository = Repository()
    state: State = State()
    host: tuple[Host, ...] = ()
    san: San = San()
    raw: Raw = Raw()
    backup: Backup = Backup()


def path_of(option: Path | None) -> Path:
    """Which file counts."""
    if option is not None:
        return option
    named = os.environ.get("LANFREE_CONFIG")
    return Path(named) if named else DEFAULT_PATH


def load(path: Path) -> Settings:
    """Read and check. Raises ``ConfigurationError`` naming the file, the key and what is wrong with it."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigurationError(str(path), "no such file", hint="'lanfree init' writes one") from None
    except OSError as error:
        raise ConfigurationError(str(path), error.strerror or "cannot be read") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Settings:
    """As ``load``, from text."""
    try:
        return Settings(source=path, **tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ConfigurationError(str(path), f"not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {key}", first["msg"]) from None


def new_text(repository: Path, state: Path) -> str:
    """The text of a first configuration file."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Lanfree; every key is described in appliance/config.py and OPERATING.md"))
    document["repository"] = {"path": str(repository)}
    document["state"] = {"directory": str(state)}
    return tomlkit.dumps(document)


def with_host(text: str, host: Host) -> str:
    """The same file with one more ``[[host]]``; comments and order are kept."""
    document = tomlkit.parse(text)
    entry = tomlkit.table()
    for key, value in host.model_dump(exclude_none=True, exclude_defaults=True).items():
        entry[key] = str(value)
    hosts = document.setdefault("host", tomlkit.aot())
    hosts.append(entry)
    return tomlkit.dumps(document)
