"""Waits for a condition with a deadline, so that no test relies on a fixed sleep."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, seconds: float = 60, every: float = 0.02, what: str = "") -> None:
    """Return once `condition` is true; fail after `seconds` with a message that names `what` was expected."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"Timed out after {seconds:g} s waiting for {what or 'a condition'}.")
        time.sleep(every)
