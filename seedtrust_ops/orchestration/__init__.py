"""How this project uses Dagster: job factory, failures, schedules, executor, metadata, long polling, resources.

Jobs are in `jobs`, one file each, and the rules they apply are in `domain`.
"""
