"""Plain SQL on Dagster's own tables: heartbeats, ticks, and purging old runs. It imports no Dagster.

What the results mean is decided in `monitoring`, `status` and `watchdog`.
"""
