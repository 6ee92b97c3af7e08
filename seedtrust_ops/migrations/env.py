"""Alembic's entry point: runs the revisions of schema `ops` on the connection that `migrator.migrate` provides.

There is no alembic.ini and no offline mode: `seedtrust-ops migrate` is the only way to run migrations.
"""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table="alembic_version",
    version_table_schema="ops",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
