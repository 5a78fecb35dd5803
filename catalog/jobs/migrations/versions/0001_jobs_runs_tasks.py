"""Jobs, their runs and tasks, measured durations, proxies, and what the drivers of several proxies note for each other."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

WAITING = sa.text("state = 'waiting'")
RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    _jobs()
    _runs()
    _tasks()
    _proxies()


def _runs() -> None:
    op.create_table(
        "job_runs",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("job_name", sa.Text(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("scheduled_for", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("selected", sa.Integer(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
        sa.UniqueConstraint("job", "scheduled_for", name="uq_job_runs_job_scheduled_for"),
    )
    op.create_index("ix_job_runs_ended_at", "job_runs", ["ended_at"])
    op.create_index("ix_job_runs_running", "job_runs", ["job"], sqlite_where=RUNNING, postgresql_where=RUNNING)
    op.create_index("ix_job_runs_started_at", "job_runs", ["started_at"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("name", name="uq_jobs_name"),
    )
    op.create_table(
        "job_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "job", name="pk_job_names"),
    )
    op.create_index("ix_job_names_job", "job_names", ["job"])


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(length=160), nullable=False),
        sa.Column("job_run", sa.String(length=128), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("order", sa.DateTime(timezone=True), nullable=False),
        sa.Column("machine", sa.String(length=64), nullable=False),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("paths", sa.Text(), nullable=False),
        sa.Column("exclude", sa.Text(), nullable=False),
        sa.Column("full", sa.Boolean(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expected_seconds", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(length=128), nullable=False),
        sa.Column("proxy", sa.String(length=128), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("point", sa.String(length=128), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("problems", sa.JSON(), nullable=False),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_run"], ["job_runs.id"], name="fk_tasks_job_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
    )
    op.create_index("ix_tasks_ended_at", "tasks", ["ended_at"])
    op.create_index("ix_tasks_job_run_state", "tasks", ["job_run", "state"])
    op.create_index("ix_tasks_machine_ended_at", "tasks", ["machine", "ended_at"])
    op.create_index("ix_tasks_run", "tasks", ["run"])
    op.create_index("ix_tasks_running", "tasks", ["proxy"], sqlite_where=RUNNING, postgresql_where=RUNNING)
    op.create_index(
        "ix_tasks_waiting",
        "tasks",
        [sa.text("priority DESC"), "order", "id"],
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )


def _proxies() -> None:
    op.create_table(
        "machine_durations",
        sa.Column("machine", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("full", sa.Boolean(), nullable=False),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("seconds", sa.JSON(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("machine", "kind", "full", name="pk_machine_durations"),
    )
    op.create_table(
        "proxies",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paths", sa.JSON(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("closed", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_proxies"),
    )
    op.create_table(
        "shared_state",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_shared_state"),
    )


def downgrade() -> None:
    op.drop_table("tasks")
    op.drop_table("shared_state")
    op.drop_table("proxies")
    op.drop_table("machine_durations")
    op.drop_table("job_names")
    op.drop_table("jobs")
    op.drop_table("job_runs")
