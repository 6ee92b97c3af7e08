"""SeedTrust's business rules, as plain functions over a database session. Imports no Dagster and no vendor client."""
