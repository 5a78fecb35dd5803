"""The error tree: each branch says what the caller may do next.

::

    LanfreeError
    ├── TryAgain                 ask again later, nothing is wrong
    │   ├── MachineBusy              another run holds this machine
    │   ├── DeviceBusy               the array answered BUSY or RESERVATION CONFLICT for too long
    │   ├── SnapshotInUse            somebody still reads the frozen disks: no commit now
    │   ├── CollectorBusy            another process collects this repository
    │   ├── JobBusy                  a run of this job goes on
    │   ├── DatabaseAway             the database does not answer; nothing half was written
    │   ├── MountBusy                programs use the files of a mounted restore point
    │   ├── WitnessFailed            an outside witness did not take a note
    │   ├── NotTold                  a way to people did not take a message; it is sent again later
    │   ├── ServerAway               an API that is asked over the network does not answer
    │   └── Cancelled                somebody asked to stop
    ├── TransportError           this transport failed; try the next one on the same snapshot
    │   ├── TransportRefused         it cannot serve this disk (machine-readable reason)
    │   └── ReadFailed               it broke while reading
    ├── ChangesUnknown           read everything, store only what differs (machine-readable reason)
    ├── RunFailed                this machine's run fails, the others go on
    │   ├── MachineNotFound
    │   ├── QuiesceFailed            policy "require" was not met
    │   ├── SnapshotFailed           the hypervisor could not make it; nothing was left behind
    │   ├── SnapshotBroken           the frozen disks are no longer frozen: what was read must not be kept
    │   ├── NoSpaceForOverlay        refused before the datastore could fill
    │   ├── WriteFailed              the target of a restore broke while it was written
    │   ├── TargetFailed             where restored files go takes no more of them
    │   ├── HookFailed               a job's own program before its run did not succeed
    │   ├── GuestAgentUnavailable    nobody answers in the guest: no agent, forbidden commands, machine off
    │   ├── LeaseLost                others stopped counting on this writer: what it found may be gone
    │   └── HypervisorError          any other refusal of the hypervisor
    ├── StopAll                  no run can go on
    │   ├── HostUnreachable
    │   ├── RepositoryFull
    │   └── RepositoryUnavailable
    └── TellPerson               only a person can decide
        ├── ConfigurationError
        ├── CertificateRefused       a server shows another certificate than the one that is trusted
        ├── KeyRefused               the repository's key is missing, wrong, or of another repository
        ├── FormatError              bytes on disk or wire are not what the format says
        ├── IntegrityError           bytes are not what was stored (names machine, point, disk, offset)
        ├── RestorePointNotFound
        ├── DeleteRefused            the restore point is held, or the last good one of its machine; nothing was deleted
        ├── ObjectRetained           the store keeps an object from deletion until a time that was promised
        ├── CatalogFailed            the catalog's database refuses; restore points are unharmed
        ├── FilesNotIndexed          the restore point is there, the catalog has no list of its files yet
        ├── AuditFailed              an access cannot be written down, and is therefore not made
        ├── JobStoreFailed           the database of the jobs refuses; restore points are unharmed
        ├── JobNotFound
        │   └── JobRunNotFound           of a job's runs, not of the jobs
        ├── AccessStoreFailed        the database of users and sessions refuses; nobody is let in
        ├── UserNotFound
        ├── UserConflict             a name is taken, or somebody else changed the user meanwhile
        ├── LastAdministrator        nobody could manage the appliance any more; nothing was changed
        ├── PasswordRefused          a new password is too easy to guess; nothing was changed
        ├── SetupRefused             the first administrator is there, or the code is not the one
        ├── ApprovalNotFound         of what waits for a second person
        ├── ApprovalRefused          this person may not confirm it, or it does not wait any more
        ├── NoSuchMachine            a person named a machine that nobody knows; nothing was begun
        ├── JobConflict              somebody else changed the job meanwhile, or its name is taken
        ├── SearchRefused            a search cannot be gone on with from where it is asked to
        ├── CarryRefused             what an index run would carry over is not what the catalog holds: walk everything
        ├── RestoreRefused           the target is not what the restore named; nothing was written
        │   └── UnderOverlay             an overlay lies above it, which must be merged first
        ├── RestoreInterrupted       the target is incomplete
        ├── MountFailed              a restore point, or a volume in it, cannot be opened for files
        │   ├── FastPathRefused          not without the appliance (machine-readable reason): open it with that
        │   └── MountEnded               the whole mount session is over: deadline, crash, closed
        ├── OverlayFull              what clients wrote to an exported restore point has reached its limit; reads go on
        ├── GuestRefused             the guest says no: its user, its file system, its agent's abilities
        ├── GuestFileNotFound        no such file in the guest's file systems
        ├── FileNotRestored          one file could not be put where it was to go; others may be
        ├── ServerRefused            the API of an appliance said no; code and hint are its own
        └── ToolFailed               an outside program failed (its output is kept)

Errors take facts, format their own message, and carry a ``hint``: one line that an operator can act on. ``code`` is
stable and machine-readable. Secrets are never facts.

Longer than 400 lines: it is one tree, and what may be done next is seen only where all of it stands together.
"""

from collections.abc import Sequence
from datetime import datetime


class LanfreeError(Exception):
    """Root. ``code``: stable machine-readable name; ``hint``: what to do, or an empty string."""

    code: str = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses take facts, pickle would call them with the message: workflows carry errors between processes.
        return (_rebuild, (type(self), self.message, self.hint), self.__dict__)


def _rebuild(kind: type[LanfreeError], message: str, hint: str) -> LanfreeError:
    error = kind.__new__(kind)
    LanfreeError.__init__(error, message, hint=hint)
    return error


def kind_of(code: str) -> type[LanfreeError] | None:
    """The error with this code, for what other processes tell of theirs; ``None`` for one that is not known here."""
    kinds: list[type[LanfreeError]] = [LanfreeError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next((kind for kind in kinds if kind.code == code), None)


class TryAgain(LanfreeError):
    """Nothing is wrong; the same call may succeed later."""

    code = "try-again"


class MachineBusy(TryAgain):
    """Another run holds the machine."""

    code = "machine-busy"

    def __init__(self, machine: str, holder: str) -> None:
        super().__init__(f"machine {machine} is held by {holder}", hint="wait for that run, or end it, then try again")


class DeviceBusy(TryAgain):
    """The array kept answering BUSY, TASK SET FULL or RESERVATION CONFLICT."""

    code = "device-busy"

    def __init__(self, device: str, status: str) -> None:
        super().__init__(
            f"{device} keeps answering {status}", hint="look for a reservation on the array, then try again"
        )


class SnapshotInUse(TryAgain):
    """A reader still has the frozen disks open, so they must not be merged now."""

    code = "snapshot-in-use"

    def __init__(self, machine: str) -> None:
        super().__init__(
            f"the frozen disks of {machine} are still being read", hint="the next start removes the snapshot"
        )


class CollectorBusy(TryAgain):
    """Another process collects this repository now. Two would do no harm, only each other's work."""

    code = "collector-busy"

    def __init__(self, holder: str) -> None:
        super().__init__(f"the repository is being collected by {holder}", hint="wait for it to end, then try again")


class JobBusy(TryAgain):
    """A run of this job goes on."""

    code = "job-busy"

    def __init__(self, job: str, run: str) -> None:
        super().__init__(
            f"job {job} runs: {run}", hint=f"wait for it to end, or end it: 'lanfree job stop {job}', then try again"
        )


class DatabaseAway(TryAgain):
    """The database behind catalog and jobs does not answer, or ended the connection. A transaction was made whole or not at
    all; of one that was being committed nobody can tell which."""

    code = "database-away"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"database {place} does not answer: {why}",
            hint="check that the server runs and can be reached; running backups wait for it, 'lanfree doctor' looks at it",
        )


class MountBusy(TryAgain):
    """A mounted restore point is in use, so it was not unmounted."""

    code = "mount-busy"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"{place} is in use: {why}",
            hint="end the programs that have files open there ('fuser -vm' names them), or use --force",
        )


class WitnessFailed(TryAgain):
    """An outside witness did not take a note of the repository's heads. Nothing in the repository is concerned."""

    code = "witness-failed"

    def __init__(self, witness: str, why: str) -> None:
        super().__init__(
            f"witness {witness} took no note: {why}",
            hint="'lanfree audit --publish' tries again; check that it is reachable",
        )


class NotTold(TryAgain):
    """A way to people (mail, chat, webhook, syslog) did not take a message. Addresses and secrets are never in it."""

    code = "not-told"

    def __init__(self, way: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"{way} did not take the message: {why}", hint=hint or f"'lanfree notify test {way}' tries it again"
        )


class ServerAway(TryAgain):
    """The API of an appliance cannot be reached, or broke off in the middle of an answer."""

    code = "server-away"

    def __init__(self, server: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"{server} does not answer: {why}", hint=hint or "check the address, and that 'lanfree serve' runs there"
        )


class Cancelled(TryAgain):
    """Somebody asked to stop, and what was asked for did."""

    code = "cancelled"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was cancelled")


class TransportError(LanfreeError):
    """This transport cannot go on; the next one may, on the same snapshot."""

    code = "transport"


class TransportRefused(TransportError):
    """The transport cannot serve the disk. ``reason``: a ``ReasonCode`` value, or a word that the transport documents."""

    code = "transport-refused"

    def __init__(self, mode: str, disk: str, reason: str, detail: str = "", *, hint: str = "") -> None:
        super().__init__(f"transport {mode} refuses disk {disk}: {reason}{': ' + detail if detail else ''}", hint=hint)
        self.mode = mode
        self.reason = reason
        self.detail = detail


class ReadFailed(TransportError):
    """A read could not be completed. Offset and length in bytes of the virtual disk."""

    code = "read-failed"

    def __init__(self, device: str, offset: int, length: int, why: str) -> None:
        super().__init__(f"reading {length} bytes at {offset} of {device}: {why}", hint="check the path to the array")


class ChangesUnknown(LanfreeError):
    """The change tracking cannot answer. ``reason``: a ``ReasonCode`` value. Never a reason to fail a backup."""

    code = "changes-unknown"

    def __init__(self, disk: str, reason: str, detail: str = "") -> None:
        super().__init__(f"changes of disk {disk} are unknown: {reason}{': ' + detail if detail else ''}")
        self.reason = reason
        self.detail = detail


class RunFailed(LanfreeError):
    """This machine's run fails; others go on."""

    code = "run-failed"


class MachineNotFound(RunFailed):
    """No configured host knows the machine."""

    code = "machine-not-found"

    def __init__(self, machine: str) -> None:
        super().__init__(f"no host knows a machine {machine}", hint="'lanfree vm list' shows what the hosts know")


class QuiesceFailed(RunFailed):
    """The policy asked for a quiesced snapshot and the guest did not deliver one."""

    code = "quiesce-failed"

    def __init__(self, machine: str, why: str) -> None:
        super().__init__(
            f"{machine} could not be quiesced: {why}",
            hint="start the guest's agent (qemu-guest-agent, VMware Tools), or back up with --quiesce prefer",
        )


class SnapshotFailed(RunFailed):
    """The hypervisor could not make the snapshot; whatever it had begun was undone."""

    code = "snapshot-failed"

    def __init__(self, machine: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"no snapshot of {machine}: {why}", hint=hint)


class SnapshotBroken(RunFailed):
    """What was read is not one moment of the disk any more, so it must not become a restore point."""

    code = "snapshot-broken"

    def __init__(self, machine: str, why: str) -> None:
        super().__init__(f"the snapshot of {machine} did not hold: {why}", hint="run the backup again")


class NoSpaceForOverlay(RunFailed):
    """The place for the overlay has too little free space. Bytes."""

    code = "no-space-for-overlay"

    def __init__(self, place: str, free: int, needed: int, *, hint: str = "") -> None:
        super().__init__(
            f"{place} has {free} bytes free, the overlay may need {needed}",
            hint=hint or "free space there, or set overlay_directory of the host to a larger place",
        )


class LeaseLost(RunFailed):
    """A lease was not renewed for so long that others did not count on its holder any more."""

    code = "lease-lost"

    def __init__(self, lease: str, why: str) -> None:
        super().__init__(
            f"lease {lease} is lost: {why}",
            hint="the run is given up and nothing of it is kept; was this proxy suspended, or the repository out of reach?",
        )


class WriteFailed(RunFailed):
    """A write to a restore's target could not be completed. Offset and length in bytes of the virtual disk."""

    code = "write-failed"

    def __init__(self, device: str, offset: int, length: int, why: str) -> None:
        super().__init__(
            f"writing {length} bytes at {offset} of {device}: {why}",
            hint="the target is not restored; check its device, then restore again",
        )


class TargetFailed(RunFailed):
    """Where restored files go takes no more: disk full, agent gone, nobody reads the stream. Whole files stay there."""

    code = "target-failed"

    def __init__(self, target: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"{target} takes no more files: {why}",
            hint=hint or "mend that, then restore again: what is there whole is not sent a second time",
        )


class HookFailed(RunFailed):
    """A program that a job needs to succeed before its run did not; the run was not begun."""

    code = "hook-failed"

    def __init__(self, job: str, why: str) -> None:
        super().__init__(
            f"job {job} was not begun: {why}", hint="mend the hook, or say 'required: false' of it in the job's policy"
        )


class GuestAgentUnavailable(RunFailed):
    """The agent in the guest cannot be worked with: it does not answer, or it may not do what is needed."""

    code = "guest-agent-unavailable"

    def __init__(self, machine: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"the guest agent of {machine} is not available: {why}",
            hint=hint or "start the machine and its agent (qemu-guest-agent, VMware Tools), then try again",
        )


class HypervisorError(RunFailed):
    """The hypervisor refused. Its own words are kept."""

    code = "hypervisor"

    def __init__(self, what: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"{what}: {why}", hint=hint)


class StopAll(LanfreeError):
    """No run can go on until this is mended."""

    code = "stop"


class HostUnreachable(StopAll):
    """A configured hypervisor host does not answer."""

    code = "host-unreachable"

    def __init__(self, host: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"host {host} cannot be reached: {why}", hint=hint or "check that libvirtd runs there and the URI is right"
        )


class RepositoryFull(StopAll):
    """No space left where the repository is."""

    code = "repository-full"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"no space left in {place}", hint="free space or enlarge it; finished restore points are unharmed"
        )


class RepositoryUnavailable(StopAll):
    """The repository cannot be reached or is not one."""

    code = "repository-unavailable"

    def __init__(self, place: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"repository {place}: {why}", hint=hint or "check that it is mounted; 'lanfree init' makes a new one"
        )


class TellPerson(LanfreeError):
    """Only a person can decide what happens next."""

    code = "tell-person"


class ConfigurationError(TellPerson):
    """The configuration says something that cannot be."""

    code = "configuration"

    def __init__(self, where: str, what: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {what}", hint=hint)


class CertificateRefused(TellPerson):
    """Who answers is not who was configured, or has a new certificate. Nothing was sent. Thumbprints are SHA-256."""

    code = "certificate-refused"

    def __init__(self, place: str, trusted: str, seen: str, *, why: str = "") -> None:
        super().__init__(
            f"{place} shows another certificate than the trusted one{': ' + why if why else ''}; "
            f"trusted: {trusted}; seen: {seen}",
            hint="if the certificate was renewed, compare what was seen with the server's own console, then trust that one",
        )
        self.seen = seen


class KeyRefused(TellPerson):
    """The secret at hand does not open the repository, or there is none. The secret itself is never a fact."""

    code = "key-refused"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the repository stays closed: {why}",
            hint="set key_file or passphrase_file under [repository], or use the key that was printed for the safe",
        )


class FormatError(TellPerson):
    """Bytes do not have the shape that their format demands."""

    code = "format"

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


class IntegrityError(TellPerson):
    """Stored bytes changed. ``where`` names machine, restore point, disk and offset as far as they are known."""

    code = "integrity"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}", hint="'lanfree verify' lists all damage; restore an older point or repair")


class RestorePointNotFound(TellPerson):
    """No such restore point."""

    code = "restore-point-not-found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no restore point {name}", hint="'lanfree points' lists them")


class ObjectRetained(TellPerson):
    """The store keeps the object from deletion and replacement. ``until``: UTC, ``None`` when the store does not tell."""

    code = "object-retained"

    def __init__(self, name: str, until: datetime | None = None, *, why: str = "") -> None:
        when = f"until {until:%Y-%m-%d %H:%M} UTC" if until is not None else "for a time that it does not tell"
        super().__init__(
            f"object {name} is kept by its store {when}{': ' + why if why else ''}",
            hint="wait until then; nobody can delete it before, and that is what it is for",
        )
        self.name = name
        self.until = until


class CatalogFailed(TellPerson):
    """The catalog's database cannot be opened, read or written. Nothing in the repository is concerned."""

    code = "catalog-failed"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"catalog {place}: {why}", hint="the catalog can be made again: 'lanfree catalog rebuild'")


class FilesNotIndexed(TellPerson):
    """The catalog does not know the files of a restore point (yet). The restore point itself is unharmed."""

    code = "files-not-indexed"

    def __init__(self, point: str) -> None:
        super().__init__(
            f"the files of restore point {point} are not indexed", hint=f"'lanfree files index {point}' records them"
        )


class AuditFailed(TellPerson):
    """The audit log cannot be opened, read or written. What was to be recorded must not be done."""

    code = "audit-failed"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"audit log {place}: {why}", hint="free space and check the file; the log cannot be made again"
        )


class JobStoreFailed(TellPerson):
    """The database of the jobs cannot be opened, read or written. Nothing in the repository is concerned."""

    code = "job-store-failed"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"job store {place}: {why}",
            hint="free space and check the database; 'lanfree bootstrap' brings back what was saved of it",
        )


class JobNotFound(TellPerson):
    """No job has this name or identity. ``known``: the names that there are."""

    code = "job-not-found"

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        there = f"there are: {', '.join(known)}" if known else "there is none yet; 'lanfree job add' makes one"
        super().__init__(f"no job {name!r}", hint=there)


class JobRunNotFound(JobNotFound):
    """No run has this id, or it is forgotten. ``known``: the newest that there are."""

    code = "job-run-not-found"

    def __init__(self, run: str, known: Sequence[str] = ()) -> None:
        super().__init__(run)
        there = f"the newest are: {', '.join(known)}" if known else "no job has run yet"
        self.message, self.hint = f"no run {run!r} of a job", f"{there}; 'lanfree job history' has them"


class AccessStoreFailed(TellPerson):
    """The database of users, tokens and sessions cannot be opened, read or written. Nobody is let in unseen."""

    code = "access-store-failed"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"access store {place}: {why}",
            hint="free space and check the database; 'lanfree bootstrap' brings back what was saved of it",
        )


class UserNotFound(TellPerson):
    """No user of this name."""

    code = "user-not-found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no user {name!r}", hint="the list of users has the names")


class UserConflict(TellPerson):
    """What was to be made of a user, or of a token of theirs, is there already. Nothing was changed."""

    code = "user-conflict"

    def __init__(self, name: str, why: str, *, hint: str = "") -> None:
        super().__init__(
            f"user {name} was not changed: {why}", hint=hint or "look at the user again, or take another name"
        )


class LastAdministrator(TellPerson):
    """Without this user nobody could manage the appliance any more. Nothing was changed."""

    code = "last-administrator"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is the last administrator who can sign in with a password",
            hint="give another user with a password the role administrator first",
        )


class PasswordRefused(TellPerson):
    """A new password is too easy to guess. Nothing was changed; the password is no fact."""

    code = "password-refused"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the password is not taken: {why}", hint="a few words that nobody would put together are good"
        )


class SetupRefused(TellPerson):
    """The first administrator is not made: there is one, or the code is not the one that holds."""

    code = "setup-refused"

    def __init__(self, why: str, *, hint: str = "'lanfree web code' on the appliance shows the code") -> None:
        super().__init__(why, hint=hint)


class ApprovalNotFound(TellPerson):
    """Nothing of this identity waits for a second person, or waited."""

    code = "approval-not-found"

    def __init__(self, identity: str) -> None:
        super().__init__(f"no approval {identity!r}", hint="the list of approvals has what waits")


class ApprovalRefused(TellPerson):
    """What waits for a second person is not confirmed by this one, or does not wait any more. Nothing was done."""

    code = "approval-refused"

    def __init__(self, summary: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"not confirmed: {summary}: {why}", hint=hint)


class NoSuchMachine(TellPerson):
    """A person named a machine that is not there; nothing was begun. ``where``: who does not know it."""

    code = "no-such-machine"

    def __init__(self, machine: str, where: str = "no host knows one") -> None:
        super().__init__(f"no such machine: {machine!r}: {where}", hint="'lanfree vm list' shows what the hosts know")


class JobConflict(TellPerson):
    """What was to be changed of a job is not as it was when it was looked at. Nothing was changed."""

    code = "job-conflict"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"job {name} was not changed: {why}", hint=f"look at it again: 'lanfree job show {name}'")


class JobUnreadable(TellPerson):
    """What is stored of a job is no policy: another version wrote it, or somebody by hand. The other jobs go on."""

    code = "job-unreadable"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"the stored policy of {name} cannot be read: {why}",
            hint="run the version that wrote it, or remove the job's row and add it anew; its restore points stay",
        )


class SearchRefused(TellPerson):
    """A search makes no sense as it is asked, or goes on from a place that is not its own."""

    code = "search-refused"

    def __init__(self, why: str) -> None:
        super().__init__(f"cannot search: {why}", hint="begin the search again")


class CarryRefused(TellPerson):
    """Files of a restore point cannot be taken over from the one before it in the index. Nothing was written."""

    code = "carry-refused"

    def __init__(self, point: str, base: str, why: str) -> None:
        super().__init__(f"the files of {point} cannot be taken over from {base}: {why}", hint="index all of its files")
        self.why = why


class DeleteRefused(TellPerson):
    """A restore point is held, or its machine would be left without a good one. Nothing was deleted."""

    code = "delete-refused"

    def __init__(self, point: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"refusing to delete restore point {point}: {why}", hint=hint)


class RestoreRefused(TellPerson):
    """The target is not what the restore named, or is in use. Nothing was written."""

    code = "restore-refused"

    def __init__(self, target: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"refusing to restore to {target}: {why}", hint=hint)


class UnderOverlay(RestoreRefused):
    """The newest writes of the target's own machine are in an overlay above it. Nothing was written."""

    def __init__(self, target: str, disk: str, overlay: str) -> None:
        super().__init__(
            target,
            f"the newest writes of disk {disk} are in {overlay}",
            hint="'lanfree sweep' merges it; a machine that is kept on a rolling overlay must be taken off that list first",
        )


class MountFailed(TellPerson):
    """A restore point, or one volume in it, cannot be opened for its files. Whole restores are not concerned."""

    code = "mount-failed"

    def __init__(self, what: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"cannot open {what} for files: {why}", hint=hint)


class MountEnded(MountFailed):
    """A mount session is over, so that no further call to it can succeed; a new one may."""

    code = "mount-ended"

    def __init__(self, why: str, *, hint: str = "open a new session") -> None:
        super().__init__("the restore point", f"the mount session is over: {why}", hint=hint)


class FastPathRefused(MountFailed):
    """These disks are not for the reader that boots nothing; the appliance may open them. ``reason`` is for machines."""

    code = "fast-path-refused"

    def __init__(self, reason: str, why: str) -> None:
        super().__init__("the disks", f"not to be read directly ({reason}): {why}")
        self.reason = reason


class OverlayFull(TellPerson):
    """The overlay of a copy-on-write export takes nothing more. Reads go on; the restore point is unharmed."""

    code = "overlay-full"

    def __init__(self, disk: str, why: str) -> None:
        super().__init__(f"{disk}: {why}", hint="end the export and make one with a larger --cow-limit")


class GuestFileNotFound(TellPerson):
    """No such file, or not of the kind that was asked for. ``path`` as the guest names it, for people to read."""

    code = "guest-file-not-found"

    def __init__(self, path: str, why: str = "no such file") -> None:
        super().__init__(f"{path}: {why}", hint="'lanfree files find' searches all restore points")


class FileNotRestored(TellPerson):
    """One file could not be put where it was to go, the others may. ``path`` in the target, for people to read."""

    code = "file-not-restored"

    def __init__(self, path: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"{path} was not restored: {why}", hint=hint)
        self.why = why


class GuestRefused(TellPerson):
    """A running guest refuses what was asked of its files. ``what``: the path, or the call, for people to read."""

    code = "guest-refused"

    def __init__(self, machine: str, what: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"guest {machine} refuses {what}: {why}", hint=hint)
        self.why = why


class RestoreInterrupted(TellPerson):
    """A restore ended in the middle: its target holds a part of the disk. Nothing is written to it any more."""

    code = "restore-interrupted"

    def __init__(self, run: str, places: Sequence[str]) -> None:
        super().__init__(
            f"restore {run} was interrupted; incomplete: {', '.join(places)}",
            hint="start it again with --overwrite, once you are sure that the places are still the right ones",
        )


class ServerRefused(TellPerson):
    """The API of an appliance said no. ``code``, message and hint are its own; ``status``: of HTTP; ``fields``: what was wrong
    with the request, as (place, words)."""

    code = "server-refused"

    def __init__(
        self, status: int, code: str, message: str, *, hint: str = "", fields: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.fields = tuple(fields)


class ToolFailed(TellPerson):
    """An outside program failed. ``output`` is what it printed, secrets masked."""

    code = "tool-failed"

    def __init__(self, program: str, outcome: str, output: str) -> None:
        super().__init__(f"{program} {outcome}: {output.strip()[-2000:]}")
        self.outcome = outcome
        self.output = output
