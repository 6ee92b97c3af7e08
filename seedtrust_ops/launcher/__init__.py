"""Starts Dagster runs fast: each run is forked from a process that has already loaded the code (a zygote).

Dagster's queue, run history and run monitoring are unchanged. The processes are the launcher (`warm_run_launcher`, in
the daemon), one run host per DAGSTER_HOME (`run_host`), its zygotes (`zygote`) and one worker per run (`run_worker`).
"""
