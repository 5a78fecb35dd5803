"""Restores of files that the API asks for, and a process that serves does: to a directory of this proxy, or into a guest.

What is asked for is a task's parameters: plain JSON, without any secret. Encrypted volumes are opened by the keys that are kept
for the machine.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from typing import Any

from api.auth.roles import Caller
from api.schemas.files import FileRestoreRequest, ToDirectory
from api.schemas.guest_names import guest_path, id_of, text_of
from appliance.auditing import audit
from appliance.file_restore import LIFETIME
from appliance.serving.performing import Done
from appliance.web.reaching import machine_in_reach, point_in_reach
from appliance.wiring import Services
from mounter.ports import shown
from mounter.restore import tree
from mounter.restore.attributes import Attributes
from mounter.restore.directory import DirectoryTarget, Existing
from mounter.restore.guest import GuestTarget
from mounter.targets import FileTarget
from proxy.errors import FormatError, RestoreRefused
from proxy.model import RestorePointId
from proxy.ports import Progress, ProgressSink

VERSION = 1
"""Of the parameters: a process that serves may be older than the one that asked."""

PROBLEMS_TOLD = 100
"""In the task's row. All are counted."""

NOTE_SECONDS = 0.5
"""Between two words on how far it is."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def ask_restore(services: Services, caller: Caller, point: str, request: FileRestoreRequest, *, key: str = "") -> str:
    """Ask for a restore; the id of its task. Raises ``RestoreRefused``, ``RestorePointNotFound``, ``MachineNotFound``."""
    from appliance.web.asking import ask  # noqa: PLC0415
    from catalog.jobs.values import TaskKind  # noqa: PLC0415

    found, called = point_in_reach(services, caller, point)
    wanted = [each.wanted for each in request.paths]
    target = request.to.model_dump(mode="json")
    if isinstance(request.to, ToDirectory):
        base_of(services.settings.web.restore_directories, request.to.directory)
        to = request.to.directory
    else:
        with services.catalog.transaction(write=False) as unit:  # into a machine that they reach as well
            target["machine"], name = machine_in_reach(unit, caller, request.to.machine)
        to = f"{name}:{request.to.directory}"
    names = [text_of(path) for path in wanted]
    audit(services, "restore-files", found, who=caller.who, paths=names, to=to)
    parameters = {
        "version": VERSION,
        "point": found.id,
        "paths": [id_of(path) for path in wanted],
        "to": target,
        "full_paths": request.full_paths,
    }
    machine = (found.machine, called)
    # Programs of one person know nothing of each other's keys.
    own_key = sha256(f"{caller.token}\n{key}".encode()).hexdigest() if key else ""
    asked = ask(
        services, caller.name, TaskKind.FILES, parameters, machine=machine, point=found.id, target=to, key=own_key
    )
    return asked.id


def restore_files(
    services: Services,
    parameters: Mapping[str, Any],
    *,
    cancelled: Callable[[], bool],
    progress: ProgressSink,
    say: Callable[[str], None],
) -> Done:
    """Do it. Raises ``RestoreRefused``, ``MountFailed``, ``GuestAgentUnavailable``, ``Cancelled`` and what the repository
    raises."""
    if parameters.get("version") != VERSION:
        raise FormatError("the restore that was asked for", f"version {parameters.get('version')} is not known here")
    found = services.repository.point(str(parameters["point"]))
    paths = [guest_path(None, str(each)) for each in parameters["paths"]]
    started = time.monotonic()
    with (
        _target(services, parameters["to"]) as target,
        services.mount(found, lifetime=LIFETIME) as session,
    ):
        say(f"opened in {time.monotonic() - started:.1f} s")
        report = tree.restore_files(
            session,
            paths,
            target,
            options=tree.Options(full_paths=bool(parameters["full_paths"])),
            progress=_Telling(progress).tell,
            cancelled=cancelled,
        )
        late = dict(target.late_losses) if isinstance(target, GuestTarget) else {}
    return _done(services, found.id, report, late, time.monotonic() - started)


def base_of(allowed: Sequence[Path], directory: str) -> tuple[Path, tuple[str, ...]]:
    """The configured directory that a path is in or below, and the names that lead there from it. Raises ``RestoreRefused``."""
    parts = Path(directory).parts
    if not directory.startswith("/") or ".." in parts or "\0" in directory:
        raise RestoreRefused(directory, "it is no absolute path without '..'")
    for base in sorted(allowed, key=lambda each: len(each.parts), reverse=True):
        if parts[: len(base.parts)] == base.parts:
            return base, parts[len(base.parts) :]
    raise RestoreRefused(
        directory,
        "files may not be restored there",
        hint=f"name a directory in or below {', '.join(map(str, allowed))}"
        if allowed
        else "set restore_directories under [web], or download the files instead",
    )


@contextmanager
def below(allowed: Sequence[Path], directory: str) -> Iterator[Path]:
    """A directory in or below a configured one, made if it is not there, opened name by name without following any link:
    whatever others do in there meanwhile, it is below. Its path is good until the block ends. Raises ``RestoreRefused``."""
    base, names = base_of(allowed, directory)
    with ExitStack() as held:
        try:
            folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the administrator's own may be a link
            held.callback(os.close, folder)
            for name in names:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
                folder = os.open(name, _FOLDER, dir_fd=folder)
                held.callback(os.close, folder)
        except OSError as error:
            hint = "name a directory; symbolic links are not followed there"
            raise RestoreRefused(directory, str(error.strerror), hint=hint) from None
        yield Path(f"/proc/self/fd/{folder}")


@contextmanager
def _target(services: Services, to: Mapping[str, Any]) -> Iterator[FileTarget]:
    if to["kind"] == "directory":
        attributes = Attributes(owner=bool(to["owner"]))
        with (
            below(services.settings.web.restore_directories, str(to["directory"])) as place,
            DirectoryTarget(place, existing=Existing(to["existing"]), attributes=attributes) as target,
        ):
            yield target
        return
    from appliance import operations  # noqa: PLC0415
    from appliance.guest import guest_files  # noqa: PLC0415

    machine = operations.machine_named(services, str(to["machine"]))
    directory = str(to["directory"]).encode(errors="surrogateescape")
    with GuestTarget(guest_files(services, machine, directory, None), overwrite=bool(to["overwrite"])) as guest:
        yield guest


class _Telling:
    """How far a restore is, as tasks tell it: nobody knows its whole size before, so the total is what there is so far."""

    def __init__(self, sink: ProgressSink) -> None:
        self._sink = sink
        self._told = 0.0

    def tell(self, progress: tree.RestoreProgress) -> None:
        """Not for every file."""
        now = time.monotonic()
        if now - self._told >= NOTE_SECONDS:
            self._told = now
            self._sink(Progress("files", progress.content, progress.content, progress.content))


def _done(
    services: Services, point: RestorePointId, report: tree.RestoreReport, late: Mapping[str, int], seconds: float
) -> Done:
    problems = [f"{text_of(each.path)}: {each.message}" for each in report.problems[:PROBLEMS_TOLD]]
    if report.failed > len(problems):
        problems.append(f"{report.failed - len(problems)} more")
    problems += [f"not kept: {what} ({count} entries)" for what, count in sorted(late.items())]
    result = {
        "entries": dict(report.entries),
        "content": report.content,
        "written": report.written,
        "failed": report.failed,
        "losses": [{"what": loss.what, "count": loss.count, "example": shown(loss.example)} for loss in report.losses],
        "seconds": round(seconds, 3),
        # Any proxy may have taken it: a directory is one of its own.
        "proxy": services.settings.proxy.name or gethostname(),
    }
    return Done(point=point, problems=tuple(problems), result=result)
