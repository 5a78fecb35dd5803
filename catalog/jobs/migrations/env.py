"""Alembic runs this for every command; the caller has put its connection into the configuration."""

from alembic import context

from catalog.database import JOBS
from catalog.jobs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=JOBS.version_table,
    transaction_per_migration=False,
)
context.run_migrations()
