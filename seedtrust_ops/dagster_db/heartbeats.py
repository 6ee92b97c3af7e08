"""When each part of Dagster's daemon last sent a heartbeat, by plain SQL; it imports no Dagster and judges nothing."""

import json
from datetime import UTC, datetime

from sqlalchemy import Connection, text

PARTS = ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING")
"""The parts that our jobs need: who asks sensors, who keeps to schedules, who starts runs, who ends lost ones."""


def read_heartbeats(connection: Connection) -> dict[str, datetime]:
    """Return the last heartbeat (UTC) of each of `PARTS` that ever sent one, from Dagster's own database."""
    if connection.scalar(text("select to_regclass('daemon_heartbeats') is null")):
        return {}
    bodies = connection.scalars(text("select body from daemon_heartbeats"))
    beats = {body["daemon_type"]: datetime.fromtimestamp(body["timestamp"], UTC) for body in map(json.loads, bodies)}
    return {part: beats[part] for part in PARTS if part in beats}
