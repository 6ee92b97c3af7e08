"""Plain SQL on Dagster's own tables: heartbeats, ticks, and purging old runs. It imports no Dagster.

What the figures mean is decided by `monitoring` and `watchdog`.
"""
