"""The watchdog: a second process that alerts when Dagster or a database stops; it imports no Dagster.

`probes` collects facts, `evaluator` decides what is an incident, `state_file` keeps the state between rounds,
`notifier` notifies people, `watchdog_loop` is the loop and records incidents in `ops.alerts` as well.
"""
