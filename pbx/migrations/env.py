"""Runs the migrations inside the transaction that pbx.database has begun, so that all of them take effect or none."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
