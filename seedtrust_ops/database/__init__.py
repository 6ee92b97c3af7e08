"""Connections to PostgreSQL: URLs, engines, the embedded server, and LISTEN. No business rule and no Dagster."""
