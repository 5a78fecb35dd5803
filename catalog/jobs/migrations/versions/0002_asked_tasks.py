"""Tasks that a person asked for: who, what exactly, what came of it; when a task was made, and that it shall end."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FIRST = "1970-01-01 00:00:00.000000+00"

UNFINISHED = sa.text("state IN ('waiting', 'running')")
ASKED = sa.text("asked_by <> ''")
INDEXES = (
    "uq_tasks_ask_key",
    "ix_tasks_asked",
    "ix_tasks_unfinished",
    "ix_tasks_kind_created_at_id",
    "ix_tasks_created_at_id",
)

ADDED = ("phase", "asked_by", "ask_key", "parameters", "result", "created_at", "stop_at")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("phase", sa.Text(), server_default="", nullable=False))
    op.add_column("tasks", sa.Column("asked_by", sa.Text(), server_default="", nullable=False))
    op.add_column("tasks", sa.Column("ask_key", sa.String(length=400), nullable=True))
    op.add_column("tasks", sa.Column("parameters", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("tasks", sa.Column("result", sa.JSON(), server_default="{}", nullable=False))
    moment = sa.Column("created_at", sa.DateTime(timezone=True), server_default=FIRST, nullable=False)
    op.add_column("tasks", moment)
    op.add_column("tasks", sa.Column("stop_at", sa.DateTime(timezone=True), nullable=True))
    of_run = "SELECT started_at FROM job_runs WHERE job_runs.id = tasks.job_run"
    op.execute(f"UPDATE tasks SET created_at = COALESCE(({of_run}), claimed_at, ended_at, created_at)")  # noqa: S608  constant
    op.create_index("ix_tasks_created_at_id", "tasks", ["created_at", "id"])
    op.create_index("ix_tasks_kind_created_at_id", "tasks", ["kind", "created_at", "id"])
    for name, where in (("ix_tasks_unfinished", UNFINISHED), ("ix_tasks_asked", ASKED)):
        op.create_index(name, "tasks", ["created_at", "id"], sqlite_where=where, postgresql_where=where)
    op.create_index("uq_tasks_ask_key", "tasks", ["ask_key"], unique=True)


def downgrade() -> None:
    """What was asked for goes: the version before would not know it, and take it for what somebody began by hand."""
    op.execute("DELETE FROM tasks WHERE asked_by <> ''")
    for name in INDEXES:
        op.drop_index(name, "tasks")
    for column in ADDED:
        op.drop_column("tasks", column)
