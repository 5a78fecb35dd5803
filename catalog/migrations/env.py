"""Alembic runs this for every command; the caller has put its connection into the configuration."""

from alembic import context

from catalog.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes columns by copying the table
    transaction_per_migration=False,
)
context.run_migrations()
