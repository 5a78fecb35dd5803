"""Machines as hypervisors show them, with what their restore points come to; indexes that lists of a million points need.

Figures that lists show are kept with the machine now; they are made here from the restore points that are there.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Rows on their way through Python at once.
_ROWS_AT_ONCE = 10_000

_HELD = sa.text("held")


def _folded() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _time() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _machine_columns() -> list[sa.Column[Any]]:
    texts = ("hypervisor", "cluster", "folder", "tags", "excluded")
    times = ("first_seen", "seen_at", "gone_at", "newest_at", "oldest_at", "due_at", "failed_at")
    return [
        sa.Column("folded", _folded(), server_default="", nullable=False),
        *(sa.Column(name, sa.Text(), server_default="", nullable=False) for name in texts),
        *(sa.Column(name, _time(), nullable=True) for name in times),
        sa.Column("state", sa.String(16), nullable=True),
        sa.Column("agent", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("template", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("newest_point", sa.String(128), nullable=True),
        sa.Column("points", sa.Integer(), server_default="0", nullable=False),
        sa.Column("stored", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("objective", sa.Float(), nullable=True),
        sa.Column("failure", sa.String(64), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("jobs", sa.JSON(), server_default="[]", nullable=False),
    ]


def upgrade() -> None:
    for column in _machine_columns():
        op.add_column("machines", column)
    op.add_column("restore_points", sa.Column("held", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("restore_points", sa.Column("health", sa.String(16), server_default="unknown", nullable=False))
    op.add_column("restore_points", sa.Column("verified_at", _time(), nullable=True))
    op.create_table(
        "machine_facts",
        sa.Column("machine_id", sa.String(64), nullable=False),
        sa.Column("disks", sa.JSON(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("datastores", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name="fk_machine_facts_machine_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("machine_id", name="pk_machine_facts"),
    )
    op.create_table(
        "hypervisors",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("looked_at", _time(), nullable=True),
        sa.Column("answered_at", _time(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("hint", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_hypervisors"),
    )
    op.drop_index("ix_restore_points_created_at", table_name="restore_points")
    for columns in (["created_at", "id"], ["level", "consistency", "created_at", "id"]):
        op.create_index(f"ix_restore_points_{'_'.join(columns)}", "restore_points", columns)
    op.create_index("ix_restore_points_held", "restore_points", ["id"], sqlite_where=_HELD, postgresql_where=_HELD)
    _fill_names()
    _fill_figures()
    op.create_index("ix_machines_folded_id", "machines", ["folded", "id"])


def downgrade() -> None:
    op.drop_index("ix_machines_folded_id", table_name="machines")
    op.drop_index("ix_restore_points_held", table_name="restore_points")
    op.drop_index("ix_restore_points_level_consistency_created_at_id", table_name="restore_points")
    op.drop_index("ix_restore_points_created_at_id", table_name="restore_points")
    op.create_index("ix_restore_points_created_at", "restore_points", ["created_at"])
    op.drop_table("hypervisors")
    op.drop_table("machine_facts")
    for name in ("verified_at", "health", "held"):
        op.drop_column("restore_points", name)
    # Machines of no restore point are nothing that the older schema knows.
    op.execute("DELETE FROM machines WHERE points = 0")
    for column in reversed(_machine_columns()):
        op.drop_column("machines", column.name)


def _fill_names() -> None:
    connection = op.get_bind()
    found = connection.execute(sa.text("SELECT id, name FROM machines")).all()
    change = sa.text("UPDATE machines SET folded = :folded WHERE id = :id")
    for start in range(0, len(found), _ROWS_AT_ONCE):
        rows = found[start : start + _ROWS_AT_ONCE]
        connection.execute(change, [{"id": id_, "folded": name.replace("\0", "").casefold()} for id_, name in rows])


def _fill_figures() -> None:
    """One pass over restore points and one over images, whatever the number of machines."""
    op.execute(
        "CREATE TEMPORARY TABLE figures AS"
        " SELECT machine_id, COUNT(*) AS points, MIN(created_at) AS oldest, MAX(created_at) AS newest"
        " FROM restore_points GROUP BY machine_id"
    )
    op.execute(
        "CREATE TEMPORARY TABLE sums AS SELECT p.machine_id, SUM(i.bytes_stored) AS stored"
        " FROM images i JOIN restore_points p ON p.id = i.point_id GROUP BY p.machine_id"
    )
    # Machines are many, so that looking each of them up needs an index.
    op.execute("CREATE INDEX figures_machine ON figures (machine_id)")
    op.execute("CREATE INDEX sums_machine ON sums (machine_id)")
    op.execute(
        "UPDATE machines SET points = f.points, oldest_at = f.oldest, newest_at = f.newest"
        " FROM figures f WHERE f.machine_id = machines.id"
    )
    op.execute("UPDATE machines SET stored = s.stored FROM sums s WHERE s.machine_id = machines.id")
    op.execute(
        "UPDATE machines SET newest_point = (SELECT id FROM restore_points p WHERE p.machine_id = machines.id"
        " ORDER BY position DESC LIMIT 1)"
    )
    op.execute("UPDATE machines SET size = COALESCE((SELECT SUM(size) FROM images WHERE point_id = newest_point), 0)")
    op.execute("DROP TABLE sums")
    op.execute("DROP TABLE figures")
