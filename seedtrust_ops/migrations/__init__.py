"""Alembic migrations of schema `ops`, and the check of the platform's schema."""
