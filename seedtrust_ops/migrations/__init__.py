"""Alembic migrations of schema `ops`, and the check that the platform's schema has what the code uses."""
