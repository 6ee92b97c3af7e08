"""Clients of external services, one vendor per module. No business rules, and no Dagster."""
