"""Names and directory paths once, with trigram indexes for searches; how volumes were left; network volumes.

Searchable text was kept per file and whole; now a name is kept once for all files that have it, and a directory's path once
for all volumes that have it. What searches see is made by ``searchable``, frozen here as it was when this was released.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Rows on their way through Python at once, about 200 bytes each.
_ROWS_AT_ONCE = 10_000

_TEXTS = ("names", "paths")


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _folded() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def searchable(path: bytes) -> str:
    return path.decode(errors="backslashreplace").replace("\0", "\\x00").casefold()


def upgrade() -> None:
    _make_texts()
    for statement in _search_indexes():
        op.execute(statement)
    _fill("names", "SELECT DISTINCT name FROM files", ("name", "folded"))
    _fill("paths", "SELECT DISTINCT path FROM directories", ("digest", "path", "folded"))
    op.add_column("files", sa.Column("name_id", _key(), nullable=True))
    op.execute("UPDATE files SET name_id = (SELECT id FROM names WHERE names.name = files.name)")
    op.add_column("directories", sa.Column("path_id", _key(), nullable=True))
    op.execute("UPDATE directories SET path_id = (SELECT id FROM paths WHERE paths.path = directories.path)")
    with op.batch_alter_table("files") as files:
        files.drop_constraint("uq_files_directory_id_name", type_="unique")
        files.drop_column("name")
        files.drop_column("search")
        files.alter_column("name_id", existing_type=_key(), nullable=False)
        files.create_unique_constraint("uq_files_directory_id_name_id", ["directory_id", "name_id"])
        files.create_foreign_key("fk_files_name_id", "names", ["name_id"], ["id"])
    op.create_index("ix_files_name_id", "files", ["name_id"])
    with op.batch_alter_table("directories") as directories:
        directories.drop_constraint("uq_directories_volume_id_path", type_="unique")
        directories.drop_column("path")
        directories.alter_column("path_id", existing_type=_key(), nullable=False)
        directories.create_unique_constraint("uq_directories_volume_id_path_id", ["volume_id", "path_id"])
        directories.create_foreign_key("fk_directories_path_id", "paths", ["path_id"], ["id"])
    op.create_index("ix_directories_path_id", "directories", ["path_id"])
    _add_facts()


def downgrade() -> None:
    op.drop_table("network_volumes")
    op.drop_column("restore_points", "index_reasons")
    op.drop_column("point_volumes", "state_detail")
    op.drop_column("point_volumes", "state")

    op.add_column("directories", sa.Column("path", sa.LargeBinary(), nullable=True))
    op.execute("UPDATE directories SET path = (SELECT path FROM paths WHERE id = path_id)")
    op.add_column("files", sa.Column("name", sa.LargeBinary(), nullable=True))
    op.add_column("files", sa.Column("search", sa.Text(), nullable=True))
    op.execute("UPDATE files SET name = (SELECT name FROM names WHERE id = name_id)")
    op.execute(
        "UPDATE files SET search = (SELECT rtrim(p.folded, '/') || '/' || n.folded FROM directories d"
        " JOIN paths p ON p.id = d.path_id JOIN names n ON n.id = files.name_id WHERE d.id = files.directory_id)"
    )
    op.drop_index("ix_files_name_id", table_name="files")
    op.drop_index("ix_directories_path_id", table_name="directories")
    with op.batch_alter_table("files") as files:
        files.drop_constraint("uq_files_directory_id_name_id", type_="unique")
        files.drop_constraint("fk_files_name_id", type_="foreignkey")
        files.drop_column("name_id")
        files.alter_column("name", existing_type=sa.LargeBinary(), nullable=False)
        files.alter_column("search", existing_type=sa.Text(), nullable=False)
        files.create_unique_constraint("uq_files_directory_id_name", ["directory_id", "name"])
    with op.batch_alter_table("directories") as directories:
        directories.drop_constraint("uq_directories_volume_id_path_id", type_="unique")
        directories.drop_constraint("fk_directories_path_id", type_="foreignkey")
        directories.drop_column("path_id")
        directories.alter_column("path", existing_type=sa.LargeBinary(), nullable=False)
        directories.create_unique_constraint("uq_directories_volume_id_path", ["volume_id", "path"])
    if op.get_bind().dialect.name == "sqlite":
        for table in _TEXTS:
            op.execute(f"DROP TABLE {table}_search")
    for table in _TEXTS:
        op.drop_table(table)


def _make_texts() -> None:
    op.create_table(
        "names",
        sa.Column("id", _key(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("folded", _folded(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_names"),
        sa.UniqueConstraint("name", name="uq_names_name"),
    )
    op.create_index("ix_names_folded", "names", ["folded"])
    op.create_table(
        "paths",
        sa.Column("id", _key(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("folded", _folded(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_paths"),
        sa.UniqueConstraint("digest", name="uq_paths_digest"),
    )


def _search_indexes() -> Iterator[str]:
    """Trigrams of what is folded. In SQLite a full-text table without content of its own, kept by triggers: the text ends with
    U+0001, so that an end is something that can be looked for."""
    if op.get_bind().dialect.name == "postgresql":
        yield "CREATE EXTENSION IF NOT EXISTS pg_trgm"
        for table in _TEXTS:
            yield f"CREATE INDEX ix_{table}_search ON {table} USING gin (folded gin_trgm_ops)"
        return
    for table in _TEXTS:
        index = f"{table}_search"
        yield (
            f"CREATE VIRTUAL TABLE {index} USING fts5"
            "(text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1')"
        )
        yield (
            f"CREATE TRIGGER {table}_added AFTER INSERT ON {table} BEGIN"  # noqa: S608  all of it is constant
            f" INSERT INTO {index} (rowid, text) VALUES (new.id, new.folded || char(1)); END"
        )
        yield (
            f"CREATE TRIGGER {table}_removed AFTER DELETE ON {table} BEGIN"  # noqa: S608  all of it is constant
            f" INSERT INTO {index} ({index}, rowid, text)"
            " VALUES ('delete', old.id, old.folded || char(1)); END"
        )


def _fill(table: str, question: str, columns: tuple[str, ...]) -> None:
    """By way of a temporary table: SQLite's full-text index is filled many times faster by one statement than by many."""
    connection = op.get_bind()
    binary = "BLOB" if connection.dialect.name == "sqlite" else "BYTEA"
    connection.execute(sa.text(f"CREATE TEMPORARY TABLE made (digest {binary}, text {binary}, folded TEXT)"))
    found = connection.execute(sa.text(question))
    while rows := found.fetchmany(_ROWS_AT_ONCE):
        values = [{"digest": blake2b(t, digest_size=16).digest(), "text": t, "folded": searchable(t)} for (t,) in rows]
        connection.execute(sa.text("INSERT INTO made VALUES (:digest, :text, :folded)"), values)
    made = {"names": "text, folded", "paths": "digest, text, folded"}[table]
    names = ", ".join(columns)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) SELECT {made} FROM made"))  # noqa: S608  all constant
    connection.execute(sa.text("DROP TABLE made"))


def _add_facts() -> None:
    op.add_column("point_volumes", sa.Column("state", sa.String(16), server_default="unknown", nullable=False))
    op.add_column("point_volumes", sa.Column("state_detail", sa.Text(), server_default="", nullable=False))
    op.add_column("restore_points", sa.Column("index_reasons", sa.JSON(), server_default="[]", nullable=False))
    op.create_table(
        "network_volumes",
        sa.Column("point_id", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("mountpoint", sa.Text(), nullable=False),
        sa.Column("told_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["point_id"], ["restore_points.id"], name="fk_network_volumes_point_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("point_id", "number", name="pk_network_volumes"),
    )
