"""Local immutability: a small privileged helper that keeps files of a repository from everybody until their time is over.

For sites whose storage has no object lock. The proxy runs without privileges; if it is taken over, it can still write new
objects, but not touch those that it has had retained: the helper has set the kernel's immutable attribute on them
(``chattr +i``), and only the helper clears it.

::

    proxy (user lanfree)                 helper (own service, four capabilities)
      PosixStore.retain  --- "retain" -->  commit the deadline, then set the attribute
      PosixStore.delete  --- "release" ->  deadline over by TRUSTED time? clear the attribute : refuse

What it protects from: whoever controls the proxy's user, its configuration, its credentials, or the machine's wall clock (NTP).
What it cannot protect from: root on this machine, and whoever can take the disk away. Somebody with the proxy's user can rename
the *directories* around retained files, which hides them until the names are mended; no byte is lost.

Nothing that the proxy says shortens anything: a period is raised to the configured minimum, an earlier deadline never replaces
a later one, a name leads to nothing but a regular file of the proxy's user beneath a configured root, by no symbolic link.

Trusted time
------------
Deadlines are not dates. They are seconds of a time that the helper keeps itself, begins at 0 when it is installed, and only
ever advances by what ``CLOCK_BOOTTIME`` proves to have passed. That clock counts since the kernel started, runs on during
suspend, and nobody can set it. The wall clock is never asked.

- The pair (trusted time, boot time) is committed with every deadline and once a minute. Started again *in the same boot* (same
  ``boot_id``), the helper adds what the boot clock advanced meanwhile: exact, however it ended.
- *After a reboot* the boot clock begins at 0 again. The boot happened after the last commit, so the time since it is proven
  and is added; at most a minute before the shutdown is lost.
- *While the machine was off* nothing is proven: the battery clock can be set in the firmware. No credit is given. A machine
  that is off every night keeps its files about twice as long; that is the price, and it is on the safe side.
- If the boot clock ever seems to go back (a machine's snapshot brought back), nothing is added.

If the helper's database is lost, retained files stay immutable and are refused as unknown; ``adopt`` gives them a new deadline.

``attribute.py`` files and the attribute; ``trusted_time.py`` the clock; ``deadlines.py`` the database; ``keeper.py`` what is
granted and what is not; ``server.py`` the socket; ``__main__.py`` the command line. Standard library only, nothing of the other
packages: what runs with privileges should be read in one sitting.
"""
