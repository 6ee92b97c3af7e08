"""Starts Dagster's runs quickly: each is a fork of a process that has loaded the code already (a zygote).

Dagster's own queue, history and monitoring stay as they are; what a run does is not its business. Four kinds of
processes take part: whoever launches (`warm_run_launcher`, in the daemon), one run host a DAGSTER_HOME (`run_host`),
its zygotes (`zygote`) and the runs (`run_worker`).
"""
