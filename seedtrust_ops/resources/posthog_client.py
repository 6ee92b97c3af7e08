"""Tells PostHog of one event at a time, by the request of PostHog's own library.

Not by that library's client: it tells of a failure only in its debug mode, which logs every event.
"""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from posthog.request import APIError, RequestsTimeout, batch_post
from pydantic import SecretStr

from seedtrust_ops.ports.events import EventRefused, PostHogRefused, PostHogUnreachable

TIMEOUT_SECONDS = 3.0
WHO = "seedtrust-ops"
"""Every event is the system's own; no person is told of."""
NOT_LET_IN = (401, 403)


class PostHog:
    """One PostHog project."""

    def __init__(self, host: str, key: SecretStr, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._host = host
        self._key = key
        self._timeout_seconds = timeout_seconds

    def take(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
        """Tell of one event.

        PostHog drops a second event with the same name, who, day and uuid; the uuid follows from `dedupe_key` alone.

        Args:
            dedupe_key: what makes the event one and the same.
            body: {"event": name, "properties": {...}}, or for a failure
                {"exception": {"type", "message", "traceback"}, "properties": {...}}.
            at: when it happened (aware).

        Raises:
            EventRefused: where PostHog will not take this one, or `body` is none of the two.
            PostHogRefused: where it does not know our key.
            PostHogUnreachable: where no answer came, or 429 or 5xx.
        """
        name, properties = _event(body)
        event = {
            "event": name,
            "uuid": str(uuid5(NAMESPACE_URL, f"seedtrust-ops:{dedupe_key}")),
            "timestamp": at.isoformat(),
            "properties": {"distinct_id": WHO, "$process_person_profile": False, "$geoip_disable": True} | properties,
        }
        try:
            batch_post(self._key.get_secret_value(), self._host, timeout=self._timeout_seconds, batch=[event])
        except APIError as error:
            raise self._answered(int(error.status)) from None
        except OSError as error:
            # `from None`, and not its text: that names paths and pools, which say nothing to people.
            reason = "it timed out" if isinstance(error, RequestsTimeout) else type(error).__name__
            raise PostHogUnreachable(
                f"PostHog at {self._host} did not answer: {reason}. Check POSTHOG_HOST; events wait for up to a day."
            ) from None

    def _answered(self, status: int) -> Exception:
        answered = f"PostHog at {self._host} answered {status}"
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return PostHogUnreachable(f"{answered}; events wait for up to a day.")
        if status in NOT_LET_IN:
            return PostHogRefused(f"{answered}: check POSTHOG_API_KEY; events wait for up to a day.")
        return EventRefused(f"{answered} to this event.")


def _event(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and properties of an event as PostHog wants them; a failure is its `$exception`."""
    try:
        properties = dict(body.get("properties", {}))
        if "exception" not in body:
            return str(body["event"]), properties
        failure = body["exception"]
        exception = {
            "type": failure["type"],
            "value": failure["message"],
            "mechanism": {"handled": True, "synthetic": False},
        }
        return "$exception", properties | {
            "$exception_list": [exception],
            "$exception_level": "error",
            "traceback": failure.get("traceback"),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EventRefused(
            f"What was queued for PostHog is no event: {error!r} is missing or makes no sense."
        ) from None
