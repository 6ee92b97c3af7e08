"""The drill's patience: thresholds that are minutes in production are seconds here, by environment variables alone."""

ON_CALL = "on-call@seedtrust.example"
THRESHOLDS = {
    "SEEDTRUST_HEALTH_INTERVAL_SECONDS": 2,
    "SEEDTRUST_HEALTH_QUIET_SECONDS": 2,
    "SEEDTRUST_HEALTH_PENDING_SECONDS": 6,
    "SEEDTRUST_HEALTH_BATCH_QUEUED_SECONDS": 20,
    "SEEDTRUST_HEALTH_BATCH_STUCK_SECONDS": 20,
    "SEEDTRUST_HEALTH_REPORTS_WAITING_SECONDS": 10,
    "SEEDTRUST_HEALTH_LEDGER_EVERY_SECONDS": 5,
    "SEEDTRUST_HEALTH_TELLING_WAITS_SECONDS": 8,
}
VARIABLES = {name: str(seconds) for name, seconds in THRESHOLDS.items()} | {"ALERT_EMAILS": ON_CALL}
NOTICED_WITHIN_SECONDS = 60.0
"""Issue 4: each row is noticed within the rule's own threshold plus 60 seconds."""
WATCHDOG_SECONDS = {"ticks": 120, "daemon": 30, "database": 30}
