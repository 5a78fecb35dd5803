"""KVM hosts through libvirt: inventory, quiesced snapshots, change tracking, the merge back.

::

    driver.py        KvmSite, the Hypervisor port. Read first.
    freezing.py      a snapshot is made, in one of three ways
    release.py       a snapshot is confirmed and ended; sweep.py ends those of dead runs
    settings.py      what is configured of a host
    ownership.py     which files are ours: by name and place (pure)
    connection.py    the only importer of libvirt: hosts and domains; errors, reconnecting, events
    connection_pool.py  one call at a time on each connection
    disk_sizes.py    sizes for listings, which no array that hangs may hold up
    answers.py       classes of libvirt's refusals, and a domain's state
    directory.py     files on a host through its storage driver
    hosts.py         all hosts at once: where a machine is now, who is silent
    inventory.py     domain XML -> machines, disks, chains (pure)
    meters.py        counters of hosts, and of their guests' disks: what backups cost, and where guests wait too long
    quiesce.py       the guest agent: hook protocol, proof of consistency, the thaw that always happens
    overlays.py      where overlays are, and the space they need; merge, confirm, delete; machines that are off
    checkpoints.py   dirty bitmaps: made before the snapshot, proven before use, mended when broken
    rolling.py       raw disks: an overlay that stays on tells what changed; its life in one drawing
    pull.py          backup-begin: the hypervisor serves the frozen disks over NBD (LAN)
    guest_files.py   files put into a running guest through its agent; guest_script.py: what its shell does for that (pure)
    define.py        saving a machine's definition and making a machine from it (pure XML)
    records.py       what a run needs to know again after the proxy was killed

A running machine whose disk is backed up over the SAN::

    before      vda -> LUN (rw)
    snapshot    vda -> lanfree-<run>-vda.qcow2 -> LUN (nobody writes; the proxy reads it)
    release     vda -> LUN (rw)                     overlay merged, pivot confirmed, only then deleted
"""

from proxy.hypervisor.kvm.driver import KvmSite
from proxy.hypervisor.kvm.settings import KvmHost

__all__ = ["KvmHost", "KvmSite"]
