"""Hypervisor hosts of the lab: libvirtd without systemd, each in a mount namespace of its own.

A host sees its own /etc/libvirt, /var/lib/libvirt, /var/cache/libvirt, /var/log/libvirt and /run/libvirt, so several of
them live on one machine beside each other and beside a libvirtd of the system. Everything else is shared, above all
the lab's directory: overlays and qcow2 files have the same path on all hosts, as on a cluster with shared storage. The
namespaces end with their last process, so nothing is ever mounted where others see it.
"""

import shlex
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from appliance.lab.array import HOSTS
from appliance.lab.cache import cache_directory
from appliance.lab.processes import ENVIRONMENT, MARKER, Process, look, wait_for
from proxy import command
from proxy.errors import ToolFailed

SECRET_USAGE = "lanfree-lab-hosts"  # noqa: S105 - the name of a libvirt secret, not its value
"""Usage name of the libvirt secret with the hosts' CHAP secret, defined on every host."""

# The first libvirtd of a machine asks every QEMU binary for its abilities: ten seconds, three times that when busy.
_START_TIMEOUT = 90.0
_TIMEOUT = 30.0

# part of the host's directory -> what the host sees it as
_MOUNTS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "run": "/run/libvirt",
}

_LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "{uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

# The host is root's own namespace: no other users, no security labels, no cgroups, and no helper daemons (virtlogd).
_QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
seccomp_sandbox = 0
backup_tls_x509_cert_dir = "{certificates}"
backup_tls_x509_verify = 1
"""


@dataclass(frozen=True, slots=True)
class Host:
    """One hypervisor host. ``directory``: its files; ``sockets``: a short directory, as Unix sockets end at 108 bytes."""

    name: str
    lab: str
    directory: Path
    sockets: Path

    @property
    def uri(self) -> str:
        """libvirt URI; works while the host runs."""
        return f"qemu+unix:///system?socket={self.sockets}/libvirt-sock"

    def virsh(self, *words: str | Path, timeout: float = _TIMEOUT, check: bool = True) -> command.Result:
        """Run one virsh command on this host. Raises ``ToolFailed``."""
        return command.run(["virsh", "--quiet", "--connect", self.uri, *words], timeout=timeout, check=check)

    def launch(self, certificates: Path) -> None:
        """Start libvirtd and return at once; ``wait`` until it answers. ``certificates``: the server's for NBD."""
        self._lay_out(certificates)
        binds = [f"mount --bind {shlex.quote(str(self.directory / part))} {place}" for part, place in _MOUNTS.items()]
        # These exist where libvirt is installed as a service; on a fresh container some may not.
        places = " ".join(_MOUNTS.values())
        script = " && ".join(
            [f"mkdir -p {places}", *binds, "exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid"]
        )
        with (self.directory / "log" / "start.log").open("ab") as log:
            argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
            command.spawn(argv, log=log, env={ENVIRONMENT: self.lab})

    @property
    def process(self) -> Process | None:
        """The host's libvirtd, if it runs."""
        try:
            found = look(int((self.directory / "run" / "libvirtd.pid").read_text()))
        except (OSError, ValueError):
            return None
        return found if found is not None and found.name == "libvirtd" else None

    def wait(self, chap_secret: Path) -> None:
        """Until it answers; then the iSCSI secret is defined. Raises ``ToolFailed``."""
        if not wait_for(self.answers, timeout=_START_TIMEOUT, every=0.1):
            logs = [self.directory / "log" / name for name in ("start.log", "libvirtd.log")]
            said = "".join(path.read_text(errors="replace") for path in logs if path.exists())
            raise ToolFailed("libvirtd", f"of host {self.name} did not answer within {_START_TIMEOUT:g} s", said)
        self._define_secret(chap_secret)
        # Make it ask QEMU for its abilities now, not in the middle of the first migration to it.
        self.virsh("capabilities", timeout=_START_TIMEOUT)
        self._keep_capabilities()

    def _keep_capabilities(self) -> None:
        # For the next lab: the questions take seconds. libvirt checks each file against the binaries' times itself, so a
        # stale one costs only the questions again.
        place = _capability_cache()
        place.mkdir(parents=True, exist_ok=True)
        for learned in self._capabilities.glob("*.xml"):
            known = place / learned.name
            if not known.exists() or known.read_bytes() != learned.read_bytes():
                draft = place / f".{learned.name}.{self.lab}"
                shutil.copyfile(learned, draft)
                draft.replace(known)

    def answers(self) -> bool:
        """Whether libvirtd answers now."""
        return self.virsh("uri", check=False).code == 0

    def state_of(self, machine: str) -> str | None:
        """libvirt's word for the machine's state (``running``, ``shut off``), ``None`` if the host does not know it."""
        done = self.virsh("domstate", machine, check=False)
        return done.text.strip() if done.code == 0 else None

    def machines(self) -> dict[str, str]:
        """Name -> state of every machine that the host knows."""
        # Id, name, state; the state may have a blank in it, lab machines' names have none.
        rows = [line.split(maxsplit=2) for line in self.virsh("list", "--all").text.splitlines() if line.strip()]
        return {row[1]: row[2].strip() for row in rows}

    def wait_for_state(self, machine: str, state: str) -> None:
        """Raises ``ToolFailed`` when the machine does not come to that state within half a minute."""
        if not wait_for(lambda: self.state_of(machine) == state, timeout=_TIMEOUT, every=0.2):
            raise ToolFailed(machine, f"is not {state} after {_TIMEOUT:g} s", f"but {self.state_of(machine)}")

    def _lay_out(self, certificates: Path) -> None:
        for part in _MOUNTS:
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        etc = self.directory / "etc"
        if (etc / "qemu.conf").exists():  # a host that was stopped keeps its identity
            return
        (etc / Path(MARKER).name).write_text(self.lab)
        (etc / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(sockets=self.sockets, uuid=uuid.uuid4()))
        known = _capability_cache()
        if known.is_dir():
            shutil.copytree(known, self._capabilities, dirs_exist_ok=True)
        (etc / "qemu.conf").write_text(_QEMU_CONF.format(certificates=certificates))

    def _define_secret(self, chap_secret: Path) -> None:
        if self.virsh("secret-list").text.find(SECRET_USAGE) >= 0:
            return
        identity = str(uuid.uuid4())
        xml = self.directory / "secret.xml"
        xml.write_text(
            f"<secret ephemeral='no' private='yes'><uuid>{identity}</uuid>"
            f"<usage type='iscsi'><target>{SECRET_USAGE}</target></usage></secret>"
        )
        self.virsh("secret-define", xml)
        self.virsh("secret-set-value", identity, "--plain", "--file", chap_secret)

    @property
    def _capabilities(self) -> Path:
        return self.directory / "cache" / "qemu" / "capabilities"


def _capability_cache() -> Path:
    return cache_directory() / "capabilities"


def disk_authentication() -> str:
    """The ``<auth>`` element of a disk that hosts reach over the array's hosts target."""
    return f"<auth username='{HOSTS.account}'><secret type='iscsi' usage='{SECRET_USAGE}'/></auth>"
