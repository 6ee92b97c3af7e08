"""Pings a monitor outside (healthchecks.io style) that raises the alarm when the pings stop or one says `fail`.

It is the last resort: it must not fail or hold up the tick that pings, so it raises nothing.
"""

import dagster as dg
import httpx

from seedtrust_ops.config import environment

TIMEOUT_SECONDS = 5.0
WORDS_SENT = 10_000
"""healthchecks.io keeps the first 10 kB of a ping's body (its documentation, "Attaching logs")."""


class HeartbeatResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The check at HEARTBEAT_URL; where that is not set, a ping does nothing."""

    def ping(self, *, telling_works: bool, words: str = "") -> str | None:
        """Say that a health tick came to its end; at once, with a short timeout and no second try.

        Args:
            telling_works: False where somebody should have been told of trouble and could not be (mail and all
                else down): the ping then goes to `<url>/fail`, and the monitor tells people by its own ways. Trouble
                that was told is no reason for that: it would be told twice.
            words: shown beside the ping; no personal data.

        Returns:
            Why the monitor was not reached, as a sentence without its address (whoever knows that can ping);
            None where it was, or where there is none.
        """
        configured = environment().heartbeat.url
        if configured is None:
            return None
        url = configured.get_secret_value()
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
