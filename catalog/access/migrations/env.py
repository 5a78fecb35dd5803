"""Alembic runs this for every command; the caller has put its connection into the configuration."""

from alembic import context

from catalog.access.tables import Base
from catalog.database import ACCESS

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=ACCESS.version_table,
    transaction_per_migration=False,
)
context.run_migrations()
