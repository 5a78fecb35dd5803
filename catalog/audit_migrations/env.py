"""Alembic runs this for every command; the caller has put its connection into the configuration."""

from alembic import context

from catalog.audit import Base
from catalog.database import AUDIT

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=AUDIT.version_table,
    transaction_per_migration=False,
)
context.run_migrations()
