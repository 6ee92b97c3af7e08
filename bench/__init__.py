"""The benchmark: SeedTrust Ops compared with the systems it replaces and with stock Dagster. Run with `make bench`."""
