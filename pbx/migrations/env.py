"""Runs the migrations inside the transaction that pbx.database has begun."""

from alembic import context

# Alembic takes SQLite for a database without transactional DDL, which is sqlite3's fault and put right in pbx.database.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
