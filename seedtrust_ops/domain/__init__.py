"""What SeedTrust does, in plain functions over a session; knows no Dagster and no vendor."""
