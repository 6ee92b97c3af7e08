"""Waits for a condition with a deadline, so that no test sleeps for luck."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, seconds: float = 60, every: float = 0.02, what: str = "") -> None:
    """Return as soon as `condition` holds; fail after `seconds`, saying `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} seconds in vain for {what or 'a condition'}")
        time.sleep(every)
