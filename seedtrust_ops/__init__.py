"""SeedTrust's background work as one Dagster code location."""
