"""Reads the last heartbeat of each of Dagster's daemons by plain SQL. It imports no Dagster, and evaluates nothing."""

import json
from datetime import UTC, datetime

from sqlalchemy import Connection, text

DAEMON_TYPES = ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING")
"""The daemons that our jobs need: for sensors, schedules, the run queue, and failing runs whose worker is lost."""


def read_heartbeats(connection: Connection) -> dict[str, datetime]:
    """Return the last heartbeat (UTC) of each of `DAEMON_TYPES` that ever sent one, from Dagster's own database."""
    if connection.scalar(text("select to_regclass('daemon_heartbeats') is null")):
        return {}
    bodies = connection.scalars(text("select body from daemon_heartbeats"))
    beats = {body["daemon_type"]: datetime.fromtimestamp(body["timestamp"], UTC) for body in map(json.loads, bodies)}
    return {name: beats[name] for name in DAEMON_TYPES if name in beats}
