"""How this project uses Dagster: job factory, failures, schedules, executor, metadata, long polling, resources.

The jobs themselves are in `jobs`, one file per job; the business rules they apply are in `domain`.
"""
