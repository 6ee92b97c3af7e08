"""Pings an external monitor (healthchecks.io style) that alerts when the pings stop or one reports a failure.

It is the last resort, so it never raises an error and never delays the health tick for long.
See docs/decisions/watchdog.md.
"""

import httpx

TIMEOUT_SECONDS = 5.0
MAX_BODY_BYTES = 10_000
"""healthchecks.io keeps the first 10 kB of a ping's body (its documentation, "Attaching logs")."""


def ping(url: str, *, alerts_delivered: bool, summary: str = "") -> str | None:
    """Report that a health tick completed: one request with a short timeout and no retry.

    Args:
        url: the URL of the check.
        alerts_delivered: False if people should have been notified of an alert and no channel worked: the ping then
            goes to `<url>/fail`, so that the monitor notifies them. An open alert that people know of does not count.
        summary: shown with the ping; no personal data.

    Returns:
        None if the ping succeeded, otherwise a sentence that says why not, without the URL (anyone who has it can
        ping).
    """
    try:
        response = httpx.post(
            url if alerts_delivered else f"{url}/fail",
            content=summary.encode()[:MAX_BODY_BYTES],
            timeout=TIMEOUT_SECONDS,
        )
    except httpx.HTTPError as error:
        reason = type(error).__name__
    else:
        if response.is_success:
            return None
        reason = f"{response.status_code} {response.reason_phrase}".rstrip()
    return f"The monitor at HEARTBEAT_URL did not accept the ping: {reason}. The next health tick pings again."
