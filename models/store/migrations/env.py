"""Alembic's environment script: uses the caller's connection and leaves logging unchanged."""

from alembic import context

from models.store.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
    # The caller's transaction spans every step, on SQLite too: BEGIN IMMEDIATE was emitted before the first of them.
    transactional_ddl=True,
)
context.run_migrations()
