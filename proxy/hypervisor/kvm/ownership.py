"""Which files are ours: those with a name as we give them, in a directory where we put them.

The name alone would not do: a machine's own image may be called ``lanfree-web1-vda.qcow2``, and what is taken for an
overlay is merged and deleted. So a path counts only directly in the overlay directory of a configured host; of any host,
because a machine takes its overlay along when it migrates.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import RunId

_NAME = re.compile(r"lanfree-(?P<run>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<key>[A-Za-z0-9]+)\.qcow2")


def overlay_path(host: KvmHost, run: RunId, key: str) -> str:
    """Where the run's overlay (pull mode: scratch file) of one disk lies on that host."""
    return f"{_normal(host.overlay_directory)}/lanfree-{run}-{key}.qcow2"


def run_in(name: str) -> RunId | None:
    """The run in the name of a file in an overlay directory, ``None`` when the name is none of ours."""
    found = _NAME.fullmatch(name)
    return found["run"] if found else None


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


def _normal(directory: str) -> str:
    """As ``directory.Directory`` writes it: double slashes collapse, ``..`` stays, since it may lead through a link."""
    return str(PurePosixPath(directory))
