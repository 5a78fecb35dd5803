"""The configuration file: TOML in, frozen settings out. Each default has its unit, its reason and when to change it.

Looked for at ``--config``, then ``$LANFREE_CONFIG``, then ``/etc/lanfree/lanfree.toml``. Secrets are never in it, only the
names of files that hold them.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from appliance.config_section import Section, without_user
from appliance.config_serving import Coverage, Latency, Limits, Protect, Proxy
from appliance.config_web import Web
from appliance.slips import slips
from appliance.telling.settings import Log, Metrics, Notify, Reports, check_address
from catalog.jobs.policy import Keep, Zone
from proxy.errors import ConfigurationError
from proxy.model import QuiescePolicy
from proxy.units import MiB

DEFAULT_PATH = Path("/etc/lanfree/lanfree.toml")
DEFAULT_STATE = Path("/var/lib/lanfree/state")
DEFAULT_REPOSITORY = Path("/var/lib/lanfree/repository")


class S3(Section):
    """A bucket; see ``proxy.repository.stores.s3_settings.S3Settings``. ``lock``: which object lock keeps objects, where
    ``immutable_days`` is said: nobody ends ``compliance`` before its time, so try it with few days first."""

    bucket: str
    endpoint: str = ""
    prefix: str = ""
    region: str = "us-east-1"
    path_style: bool | None = None
    credentials_file: Path | None = None
    profile: str = "default"
    ca_bundle: Path | None = None
    lock: Literal["governance", "compliance"] | None = None
    keep_versions: bool = False


class Repository(Section):
    """Where restore points go (a directory, or ``s3``), and what opens them: a key file (64 hexadecimal digits; ``lanfree
    init`` makes one) or a file with a passphrase, 0600 both. ``unencrypted`` has to be said: then whoever reads the storage
    reads every disk.

    ``immutable_days``: what a restore point needs cannot be deleted for so many days after its seal: by object lock, or by
    the service lanfree-immutable behind ``immutable_socket`` in a directory. Longer keeps more space occupied.
    """

    path: Path = DEFAULT_REPOSITORY
    s3: S3 | None = None
    immutable_days: Annotated[int, Field(ge=1, le=3640)] | None = None
    immutable_socket: Path | None = None
    key_file: Path | None = None
    passphrase_file: Path | None = None
    unencrypted: bool = False

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.key_file is not None) + (self.passphrase_file is not None) + self.unencrypted > 1:
            raise ValueError("key_file, passphrase_file and unencrypted exclude each other")
        if self.s3 is not None and "path" in self.model_fields_set:
            raise ValueError("a repository has either a path or an s3 table")
        if self.immutable_days is not None and not (self.s3.lock if self.s3 else self.immutable_socket):
            raise ValueError("immutable_days needs an s3 lock, or an immutable_socket for a directory")
        return self

    @property
    def place(self) -> str:
        """For people."""
        if self.s3 is None:
            return str(self.path)
        return f"s3://{self.s3.bucket}/{self.s3.prefix}".rstrip("/")


class Retention(Keep):
    """Which restore points ``lanfree prune`` keeps of each machine (``proxy.repository.collection.retention``), where no job
    says it. ``last``: the newest; ``days``: all that are not older; the others: the newest of so many newest periods that
    have points, in the time zone ``zone``. 0 is "no such rule"; without any rule nothing is ever removed. ``forgotten_jobs``:
    points of a job that nobody knows any more (its records were lost) are kept, or follow these rules too."""

    zone: Zone = "UTC"
    forgotten_jobs: Literal["keep", "follow"] = "keep"


class CopyRepository(Repository):
    """A second repository for copies of restore points, by the ``name`` that ``lanfree copy`` takes. Its key may be another.
    ``retention``: of the copies in it, where no job says it. It is never that of the first repository: without any rule of
    its own nothing is removed there."""

    name: str
    retention: Retention = Retention()


class CopySource(Repository):
    """Another site's repository, of which ``lanfree copy --from NAME`` copies restore points into ``[repository]``. It is only
    read. ``leases``: tell the other site what is being copied, so that it does not delete and collect it meanwhile (the right
    to write below ``leases/`` is needed); without, what is deleted there while it is copied is not copied. ``retention``: of
    the copies here; without any rule they are all kept."""

    name: str
    leases: bool = False
    retention: Retention = Retention()


class Witness(Section):
    """Who notes outside of the repository which restore points were the newest (``lanfree audit --publish``): a ``file`` on
    another machine's share, a ``url`` that takes a POST, or a mail ``recipient``. Any number; what is noted is signed."""

    file: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    recipient: str | None = None
    sender: str = "lanfree@localhost"
    mail_host: str = "localhost"
    mail_port: Annotated[int, Field(ge=1, le=65535)] = 25
    starttls: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.file, self.url, self.recipient)) != 1:
            raise ValueError("a witness is either a file, a url or a recipient")
        return self

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        return without_user(value, "name a token_file instead")


class State(Section):
    """Catalog, workflow records, locks. Local disk, not NFS: SQLite and flock want a real one."""

    directory: Path = DEFAULT_STATE


class Database(Section):
    """Where catalog, access log, jobs and workflow records are. Nothing said: SQLite files in the state directory, which is
    all that one proxy needs. ``url``: one PostgreSQL database for all of it, which several proxies share
    (``postgresql+psycopg://lanfree@db/lanfree``; libpq's options after a ``?``, ``sslmode=verify-full`` among them).
    ``password_file``: 0600, the password in its first line; read for each connection, so a new one needs no restart.
    ``history_days``: job runs that ended earlier are forgotten, restore points stay; a year and a month to compare with."""

    url: str | None = None
    password_file: Path | None = None
    history_days: Annotated[int, Field(ge=1, le=36500)] = 400

    @model_validator(mode="after")
    def _postgresql_without_secrets(self) -> Self:
        if self.url is None:
            if self.password_file is not None:
                raise ValueError("password_file needs a url")
            return self
        parts = urlsplit(self.url)
        if parts.scheme != "postgresql+psycopg" or len(parts.path) < 2:
            raise ValueError("the url is postgresql+psycopg://USER@HOST/DATABASE")
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError("the url holds a password: name a password_file instead")
        return self


class Host(Section):
    """A libvirt host. ``overlay_directory``: path on that host for guest writes during a backup; shared by hosts among
    which machines migrate. ``overlay_reserve``: bytes that must be free there; a tenth of the disks where it is not said.
    ``nbd_address``, ``tls_directory``: how to reach its NBD server over the LAN, and the proxy's certificate for that."""

    name: str
    uri: str
    overlay_directory: str = "/var/lib/libvirt/images/lanfree"
    overlay_reserve: Annotated[int, Field(ge=0)] | None = None
    nbd_address: str | None = None
    tls_directory: Path | None = None


class Vcenter(Section):
    """A vCenter, or a single ESXi host; see ``proxy.hypervisor.vsphere.settings.VsphereSettings`` for every key, and
    proxy/transport/SAN.md for how its LUNs are shown to the proxy. ``name`` is part of what restore points remember: a new
    address needs no new name. ``password_file``: 0600, the password in its first line. ``thumbprint`` (SHA-256) or
    ``ca_bundle``: how the certificate is recognised. ``vddk_library``: directory of VMware's VDDK, if its user has installed it
    and nbdkit's plugin for it: disks that the SAN cannot serve are then read with it instead of by exports."""

    name: str
    host: str
    user: str
    password_file: Path
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    thumbprint: str = ""
    ca_bundle: Path | None = None
    vddk_library: Path | None = None
    quiesce_timeout: Annotated[float, Field(gt=0)] = 900.0
    snapshots_per_datastore: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _recognised(self) -> Self:
        if not self.thumbprint and self.ca_bundle is None:
            raise ValueError("a vcenter needs a thumbprint or a ca_bundle: nobody could tell it from another")
        return self


class Kvm(Section):
    """``rolling_overlay``: machines, by name, pattern of names (``db-*``) or identity, whose raw disks stay on an overlay
    between backups, so that the next backup reads only what changed. None by default: guest writes then go to a file in
    ``overlay_directory`` for ever, which must be shared with the proxy, as fast and safe as the array, and have room for
    each disk once more; the guest stops when it is full. See OPERATING.md before you name a machine. A machine that is
    taken off the list goes back to its raw disks at the next sweep or backup."""

    rolling_overlay: tuple[str, ...] = ()


class Target(Section):
    """An iSCSI target as the proxy reaches it; see proxy/transport/SAN.md."""

    iqn: str
    portals: Annotated[tuple[str, ...], Field(min_length=1)]
    initiator: str = "iqn.2026-11.org.lanfree:proxy"
    chap_user: str = ""
    chap_secret_file: Path | None = None
    presents: tuple[str, ...] = ()
    access: Literal["backup", "restore"] = "backup"


class San(Section):
    target: tuple[Target, ...] = ()


class Raw(Section):
    """Directories and devices that hosts and proxy see under the same path."""

    shared_directories: tuple[Path, ...] = ()


class Backup(Section):
    """``workers``: parallel read-hash-store threads a disk. Four keep two cores busy while others wait for the array; more
    cores take more. ``transports``: in order of preference; leave ``lan`` out to fail rather than load the hosts.
    ``audit_sample``: chunks of a disk that each incremental compares though the change tracking calls them unchanged (one in
    256 at most); 64 take about a second over a SAN, and find a loss of one in a hundred with 47 % each night.
    ``tracking_lost``: ``fail`` where reading a whole disk again would not fit into the night; the run then says why."""

    workers: Annotated[int, Field(ge=1, le=64)] = 4
    segment: Annotated[int, Field(ge=MiB // 4, le=64 * MiB)] = MiB
    transports: tuple[Literal["san", "raw", "lan"], ...] = ("san", "raw", "lan")
    quiesce: QuiescePolicy = QuiescePolicy.PREFER
    audit_sample: Annotated[int, Field(ge=0, le=65536)] = 64
    tracking_lost: Literal["continue", "fail"] = "continue"


class Files(Section):
    """The files inside restore points. ``index``: record their names after each backup; without it they are found only in
    points that ``lanfree files index`` was told to record. ``reader``: ``auto`` opens what it can without booting anything,
    ``appliance`` always boots libguestfs (slower by its start of 5 to 35 s; for comparing the two). ``appliance_memory``: MiB
    for that appliance; more for XFS volumes of many TiB and for Windows machines."""

    index: bool = True
    reader: Literal["auto", "appliance"] = "auto"
    appliance_memory: Annotated[int, Field(ge=256, le=65536)] = 768


class Settings(Section):
    """All of it. ``source`` is the file it came from."""

    source: Path
    repository: Repository = Repository()
    copy_to: tuple[CopyRepository, ...] = ()
    copy_from: tuple[CopySource, ...] = ()
    retention: Retention = Retention()
    witness: tuple[Witness, ...] = ()
    state: State = State()
    database: Database = Database()
    host: tuple[Host, ...] = ()
    vcenter: tuple[Vcenter, ...] = ()
    kvm: Kvm = Kvm()
    san: San = San()
    raw: Raw = Raw()
    backup: Backup = Backup()
    latency: Latency = Latency()
    files: Files = Files()
    coverage: Coverage = Coverage()
    limits: Limits = Limits()
    proxy: Proxy = Proxy()
    protect: Protect = Protect()
    notify: tuple[Notify, ...] = ()
    metrics: Metrics = Metrics()
    log: Log = Log()
    reports: Reports = Reports()
    web: Web = Web()

    @model_validator(mode="after")
    def _ways_are_private_and_their_names_differ(self) -> Self:
        for way in self.notify:
            check_address(way)
        if len({way.name for way in self.notify}) < len(self.notify):
            raise ValueError("two [[notify]] have the same name")
        return self

    @model_validator(mode="after")
    def _names_of_vcenters_differ(self) -> Self:
        names = [vcenter.name for vcenter in self.vcenter]
        if len(set(names)) < len(names):
            raise ValueError("two [[vcenter]] have the same name")
        return self

    @model_validator(mode="after")
    def _names_of_copies_differ(self) -> Self:
        for kind, names in (("copy_to", self.copy_to), ("copy_from", self.copy_from)):
            if len({each.name for each in names}) < len(names):
                raise ValueError(f"two [[{kind}]] have the same name")
        return self

    @model_validator(mode="after")
    def _rolling_overlays_are_seen(self) -> Self:
        """The proxy reads a rolling overlay itself, beside the LUN."""
        if self.kvm.rolling_overlay:
            shared = [directory.resolve() for directory in self.raw.shared_directories]
            for host in self.host:
                if not any(Path(host.overlay_directory).resolve().is_relative_to(directory) for directory in shared):
                    raise ValueError(
                        f"kvm.rolling_overlay needs overlay_directory of host {host.name} in raw.shared_directories"
                    )
        return self


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
        (key, first), *others = [(".".join(map(str, place)), said) for place, said in slips(error, Settings)]
        refusal = ConfigurationError(f"{path}: {key}" if key else str(path), first)
        for key, said in others:
            refusal.add_note(f"{key}: {said}" if key else said)
        raise refusal from None
