"""Tamper evidence: were restore points removed, altered or exchanged by somebody who has no key?

Every manifest is signed and names its predecessor with its hash, every deletion leaves a signed tombstone (``chain.py``).
What a chain cannot tell by itself is that its newest points are gone. So its end, the **head**, is noted outside
(``witness.py``), and compared here: whatever was a head once must be in the chain for ever, as a point or as a tombstone.

Somebody who has the key can make a history of his own; only what was noted outside stands against that. In a repository in
the clear everybody has it: there an audit finds accidents, and what does not fit the notes.
"""

from collections.abc import Iterable, Iterator

from proxy.model import MachineId
from proxy.repository.checking import chain as chains
from proxy.repository.checking.chain import Chain, Finding, Head
from proxy.repository.manifest import machine_name
from proxy.repository.repository import Repository


def audit(repository: Repository, noted: Iterable[Head] = ()) -> Iterator[Finding]:
    """All findings, machine after machine; of those that are only told see ``Trouble.notice``. ``noted``: heads that were
    published before, as many as there are, in any order. Raises ``RepositoryUnavailable``.

    What goes on beside it (seals, deletions) is not taken for tampering: what is found must be there at a second look.
    """
    by_chain: dict[str, set[Head]] = {}
    for head in noted:
        by_chain.setdefault(head.chain, set()).add(head)
    for folder in sorted({*chains.folders(repository), *by_chain}):
        heads = sorted(by_chain.get(folder, ()), key=lambda h: (h.number, h.point))
        found = _findings(chains.read(repository, folder), heads)
        if found:
            again = set(_findings(chains.read(repository, folder), heads))
            chains.must_be_there(repository)
            yield from (finding for finding in found if finding in again)
    chains.must_be_there(repository)  # else nothing was found in chains that nobody could see


def heads(repository: Repository, machine: MachineId | None = None) -> list[Head]:
    """The ends of all chains, or of one machine's: what a witness shall note. One a machine, unless its chain was forked.
    Raises ``RepositoryUnavailable``."""
    every = chains.folders(repository) if machine is None else [machine_name(repository.keys, machine)]
    found = [head for folder in every for head in chains.read(repository, folder).heads()]
    chains.must_be_there(repository)
    return found


def _findings(chain: Chain, noted: Iterable[Head]) -> list[Finding]:
    against = (chains.compare(chain, head) for head in noted)
    own = chains.findings(chain)
    known = {(finding.trouble, finding.point) for finding in own}
    return own + [f for f in against if f is not None and (f.trouble, f.point) not in known]
