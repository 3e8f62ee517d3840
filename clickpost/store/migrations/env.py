"""Runs migrations on the connection that `clickpost.store.database.migrate` opened."""

from alembic import context
from sqlmodel import SQLModel

from clickpost.store import tables  # noqa: F401  # fills the metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    include_name=lambda name, kind, _: kind != "table" or name in SQLModel.metadata.tables,
)
with context.begin_transaction():
    context.run_migrations()
