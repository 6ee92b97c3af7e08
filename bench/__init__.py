"""The bench: our system beside what it replaces and beside stock Dagster, in one run. `make bench`."""
