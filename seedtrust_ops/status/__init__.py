"""The system's status for `seedtrust-ops status` and `seedtrust-ops health`; nothing here imports Dagster.

`models` are the types, `runs` and `workload` read the two databases, `collector` queries both, `health` rates the
result, and `renderer` prints it.
"""
