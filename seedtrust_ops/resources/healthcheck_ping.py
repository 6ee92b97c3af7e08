"""Pings a monitor outside (healthchecks.io style) that raises the alarm when the pings stop or one says `fail`.

It is the last resort: it must not fail or hold up the tick that pings, so it raises nothing.
"""

import httpx

TIMEOUT_SECONDS = 5.0
WORDS_SENT = 10_000
"""healthchecks.io keeps the first 10 kB of a ping's body (its documentation, "Attaching logs")."""


def ping(url: str, *, telling_works: bool, words: str = "") -> str | None:
    """Report that a health tick completed; once, with a short timeout and no retry.

    Args:
        url: the address of the check.
        telling_works: False if somebody should have been notified of an incident and could not be (mail and
            everything else down): the ping then goes to `<url>/fail`, and the monitor notifies people by its own
            channels. An incident that people were notified of is no reason for that: they would be notified twice.
        words: shown beside the ping; no personal data.

    Returns:
        Why the monitor was not reached, as a sentence without its address (anyone who has it can ping); None if it
        was reached.
    """
    try:
        response = httpx.post(
            url if telling_works else f"{url}/fail", content=words.encode()[:WORDS_SENT], timeout=TIMEOUT_SECONDS
        )
    except httpx.HTTPError as error:
        reason = type(error).__name__
    else:
        if response.is_success:
            return None
        reason = f"{response.status_code} {response.reason_phrase}".rstrip()
    return f"The monitor at HEARTBEAT_URL did not take the ping: {reason}. The next tick pings again."
