"""How a sensor waits in the database for work, so that work is asked for as it is committed.

The waiting itself is `resources/waiting`; what a sensor looks at is in its job's file.
"""

from collections.abc import Callable
from typing import TypeVar

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.listen_notify import Signal, listening, wait_until_found
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource

Request = TypeVar("Request", dg.RunRequest, dg.SensorResult)


def poll_or_wait(
    database: DatabaseResource, signal: Signal, look: Callable[[], Request | dg.SkipReason], *, rest: float = 0.0
) -> Request | dg.SkipReason:
    """Return what `look` asks for as soon as it asks for something, at the latest after the sensor's time.

    Args:
        database: the application's database.
        signal: what is committed together with new work.
        look: returns what to ask for, or why nothing.
        rest: after a look in vain there is none for so many times the look's own length.
    """
    seconds = get_settings().location.sensor_wait_seconds
    if seconds == 0:
        return look()
    with listening(database.engine(), signal) as bell:
        outcome = wait_until_found(
            look, lambda seen: not isinstance(seen, dg.SkipReason), bell, seconds=seconds, rest=rest
        )
    if isinstance(outcome, dg.SkipReason) and bell.why_polling is not None:
        return dg.SkipReason(f"{outcome.skip_message} It looked every second: {bell.why_polling}.")
    return outcome
