"""The outside world behind Dagster resources, one vendor a file; no business rule lives here."""
