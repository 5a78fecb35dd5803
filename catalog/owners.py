"""Whose files: machines by name, for questions that are not about all of them."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.tables import MachineRow, RestorePointRow
from proxy.model import MachineId

# Databases limit how many values a question may have.
_VALUES = 500


class Owners:
    """Part of a unit of work. Machines that have restore points, and those that hypervisors show."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def names(self) -> Mapping[MachineId, str]:
        """Of all, as their hypervisors call them; as their newest restore point does where none shows them."""
        return {row.id: row.name for row in self._session.execute(select(MachineRow.id, MachineRow.name))}

    def name(self, machine: MachineId) -> str | None:
        """``None`` for a machine that is not known here."""
        return self._session.scalar(select(MachineRow.name).where(MachineRow.id == machine))

    def called(self, name: str) -> Sequence[tuple[MachineId, str]]:
        """Those with this identity (then only that one), or this name; with their names."""
        named = select(MachineRow.id, MachineRow.name)
        found = self._session.execute(named.where(MachineRow.id == name)).all()
        found = found or self._session.execute(named.where(MachineRow.name == name)).all()
        return [(row.id, row.name) for row in found]

    def not_indexed(self, machines: Collection[MachineId] | None = None) -> int:
        """Restore points whose files are not recorded; of these machines only, where they are said."""
        p = RestorePointRow
        query = select(func.count()).select_from(p).where(p.files_indexed_at.is_(None))
        if machines is None:
            return self._session.scalar(query) or 0
        wanted = sorted(machines)
        return sum(
            self._session.scalar(query.where(p.machine_id.in_(wanted[start : start + _VALUES]))) or 0
            for start in range(0, len(wanted), _VALUES)
        )
