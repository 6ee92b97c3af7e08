"""Alembic's entry: runs the revisions of schema `ops` over the connection that `migrating.migrate` hands in.

There is no alembic.ini and no offline mode; `seedtrust-ops migrate` is the one way to run these.
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
