"""The built-in lab: a real iSCSI array, real hypervisor hosts and a real guest, all on one machine and on loopback.

It is shipped because it is how a newcomer sees the product work, and what the tests run against. Needs root: hosts live
in mount namespaces of their own.

::

    lab.py        Lab: up, attach, down, status, guest access, live migration; start here
    array.py      the array: tgtd with three targets over the same LUNs (hosts, backup, restore), counters and faults
    hosts.py      libvirtd hosts without systemd, each in its own mount namespace     pki.py  certificates for NBD over TLS
    guest.py      builds the guest's disk from host packages (no download, no root mount)    hooks/  what runs in it
    machines.py   the lab's machines and their domain XML
    state.py      state.json: all that ``down`` needs after the starter was killed
    processes.py  finding and ending what belongs to a lab, by mark and not by pid alone

``hooks/lanfree-quiesce`` is meant for real guests too; the other hooks are the lab's pretended application.
"""
