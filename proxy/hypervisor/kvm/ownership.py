"""Which files are ours: those with a name as we give them, in a directory where we put them.

The name alone would not do: a machine's own image may be called ``lanfree-web1-vda.qcow2``, and what is taken for an
overlay is merged and deleted. So a path counts only directly in the overlay directory of a configured host; of any host,
because a machine takes its overlay along when it migrates.

Two kinds of name, because they mean different things when they are found: ``lanfree-<run>-<disk>.qcow2`` is an overlay for
the time of one run; ``lanfree-<run>-<disk>.rolling.<token>.qcow2`` was made to stay on (see ``rolling.py``). The token makes
the second kind unique for ever: it is the mark of the moment at which the overlay began.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import RunId

_NAME = re.compile(
    r"lanfree-(?P<run>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<key>[A-Za-z0-9]+)(?P<rolling>\.rolling\.[0-9a-f]{8})?\.qcow2"
)


def overlay_path(host: KvmHost, run: RunId, key: str) -> str:
    """Where the run's overlay (pull mode: scratch file) of one disk lies on that host."""
    return f"{_normal(host.overlay_directory)}/lanfree-{run}-{key}.qcow2"


def new_rolling_path(host: KvmHost, run: RunId, key: str) -> str:
    """A place for a rolling overlay that begins with this run, by a name that was never used and never will be."""
    return f"{_normal(host.overlay_directory)}/lanfree-{run}-{key}.rolling.{secrets.token_hex(4)}.qcow2"


def run_in(name: str) -> RunId | None:
    """The run in the name of a file in an overlay directory, ``None`` when the name is none of ours."""
    found = _NAME.fullmatch(name)
    return found["run"] if found else None


def is_rolling(name: str) -> bool:
    """Whether a file in an overlay directory is a rolling overlay."""
    found = _NAME.fullmatch(name)
    return found is not None and found["rolling"] is not None


@dataclass(frozen=True, slots=True)
class Ownership:
    """``directories``: overlay directories of all hosts among which a machine can move, normal, without a slash at the end."""

    directories: frozenset[str]

    @classmethod
    def of(cls, hosts: Iterable[KvmHost]) -> Self:
        """For these hosts."""
        return cls(frozenset(_normal(host.overlay_directory) for host in hosts))

    def run_of(self, path: str) -> RunId | None:
        """The run that made this overlay or scratch file, ``None`` when it is not ours."""
        directory, _, name = path.rpartition("/")
        return run_in(name) if directory and _normal(directory) in self.directories else None

    def owns(self, path: str) -> bool:
        """Whether it is an overlay or scratch file of some run of ours."""
        return self.run_of(path) is not None

    def rolls(self, path: str) -> bool:
        """Whether it is a rolling overlay of ours."""
        return self.owns(path) and is_rolling(path.rpartition("/")[2])


def _normal(directory: str) -> str:
    """As ``directory.Directory`` writes it: double slashes collapse, ``..`` stays, since it may lead through a link."""
    return str(PurePosixPath(directory))
