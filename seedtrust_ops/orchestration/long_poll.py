"""Long polling for sensors: a tick waits for a NOTIFY, so that a run is requested as soon as work is committed.

The listening itself is in `database/listen_notify`; what a sensor evaluates is in its job's file.
See docs/decisions/long-poll-sensors.md.
"""

from collections.abc import Callable
from typing import TypeVar

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.listen_notify import NotifyChannel, listen, poll_until
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource

Request = TypeVar("Request", dg.RunRequest, dg.SensorResult)


def poll_or_wait(
    database: DatabaseResource,
    channel: NotifyChannel,
    evaluate: Callable[[], Request | dg.SkipReason],
    *,
    cooldown_ratio: float = 0.0,
) -> Request | dg.SkipReason:
    """Return what `evaluate` requests as soon as it requests something, or its last skip reason when time is up.

    The wait lasts at most SEEDTRUST_SENSOR_WAIT_SECONDS; 0 means evaluate once.

    Args:
        database: the application database.
        channel: the NOTIFY that is sent when new work is committed.
        evaluate: returns the request, or the reason to skip.
        cooldown_ratio: after an evaluation that found nothing, pause for this many times its duration.
    """
    seconds = get_settings().location.sensor_wait_seconds
    if seconds == 0:
        return evaluate()
    with listen(database.engine(), channel) as listener:
        outcome = poll_until(
            evaluate,
            lambda outcome: not isinstance(outcome, dg.SkipReason),
            listener,
            seconds=seconds,
            cooldown_ratio=cooldown_ratio,
        )
    if isinstance(outcome, dg.SkipReason) and listener.polling_reason is not None:
        return dg.SkipReason(f"{outcome.skip_message} Polled every second because {listener.polling_reason}.")
    return outcome
