"""First schema: machines, restore points and images, runs, and the file index.

``upgrade`` is longer than a screen: one list of tables, frozen since it was released, which would say less in parts.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "machines",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_machines"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("machine_id", sa.String(length=64), nullable=False),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("point_id", sa.String(length=128), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_machine_id_started_at", "runs", ["machine_id", "started_at"])
    op.create_index("ix_runs_started_at", "runs", ["started_at"])

    op.create_table(
        "restore_points",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("machine_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("machine_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("hypervisor", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("parent", sa.String(length=128), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("level", sa.String(length=32), nullable=False),
        sa.Column("consistency", sa.String(length=32), nullable=False),
        sa.Column("frozen_seconds", sa.Float(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("files_indexed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["machines.id"], name="fk_restore_points_machine_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_restore_points"),
        sa.UniqueConstraint("machine_id", "position", name="uq_restore_points_machine_id_position"),
    )
    op.create_index("ix_restore_points_created_at", "restore_points", ["created_at"])

    op.create_table(
        "volumes",
        sa.Column("id", _key(), nullable=False),
        sa.Column("machine_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["machine_id"], ["machines.id"], name="fk_volumes_machine_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
        sa.UniqueConstraint("machine_id", "name", name="uq_volumes_machine_id_name"),
    )
    op.create_table(
        "directories",
        sa.Column("id", _key(), nullable=False),
        sa.Column("volume_id", _key(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name="fk_directories_volume_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_directories"),
        sa.UniqueConstraint("volume_id", "path", name="uq_directories_volume_id_path"),
    )
    op.create_table(
        "images",
        sa.Column("point_id", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(length=32), nullable=False),
        sa.Column("transport", sa.String(length=32), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("change_id", sa.Text(), nullable=True),
        sa.Column("bytes_read", sa.BigInteger(), nullable=False),
        sa.Column("bytes_new", sa.BigInteger(), nullable=False),
        sa.Column("bytes_stored", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["point_id"], ["restore_points.id"], name="fk_images_point_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("point_id", "key", name="pk_images"),
    )
    op.create_table(
        "point_volumes",
        sa.Column("point_id", sa.String(length=128), nullable=False),
        sa.Column("volume_id", _key(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("mountpoint", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["point_id"], ["restore_points.id"], name="fk_point_volumes_point_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name="fk_point_volumes_volume_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("point_id", "volume_id", name="pk_point_volumes"),
    )
    op.create_table(
        "files",
        sa.Column("id", _key(), nullable=False),
        sa.Column("directory_id", _key(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["directory_id"], ["directories.id"], name="fk_files_directory_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("directory_id", "name", name="uq_files_directory_id_name"),
    )
    op.create_table(
        "versions",
        sa.Column("id", _key(), nullable=False),
        sa.Column("file_id", _key(), nullable=False),
        sa.Column("volume_id", _key(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(length=16), nullable=False),
        sa.Column("type", sa.String(length=20), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("gid", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("ctime_ns", sa.BigInteger(), nullable=False),
        sa.Column("inode", sa.BigInteger(), nullable=False),
        sa.Column("link_target", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_versions_file_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name="fk_versions_volume_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("file_id", "first", name="uq_versions_file_id_first"),
    )
    op.create_index("ix_versions_volume_id_first", "versions", ["volume_id", "first"])
    op.create_index("ix_versions_volume_id_until", "versions", ["volume_id", "until"])


def downgrade() -> None:
    op.drop_index("ix_versions_volume_id_until", table_name="versions")
    op.drop_index("ix_versions_volume_id_first", table_name="versions")

    op.drop_table("versions")
    op.drop_table("files")
    op.drop_table("point_volumes")
    op.drop_table("images")
    op.drop_table("directories")
    op.drop_table("volumes")
    op.drop_index("ix_restore_points_created_at", table_name="restore_points")

    op.drop_table("restore_points")
    op.drop_index("ix_runs_started_at", table_name="runs")
    op.drop_index("ix_runs_machine_id_started_at", table_name="runs")

    op.drop_table("runs")
    op.drop_table("machines")
