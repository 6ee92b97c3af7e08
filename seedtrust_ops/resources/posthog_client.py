"""Sends events to PostHog one at a time, with the request function of PostHog's own library.

It does not use that library's client, which reports failures only in its debug mode, and that logs every event.
See docs/decisions/outbox.md.
"""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from posthog.request import APIError, RequestsTimeout, batch_post
from pydantic import SecretStr

from seedtrust_ops.ports.events import EventRejected, PostHogRejected, PostHogUnavailable

TIMEOUT_SECONDS = 3.0
DISTINCT_ID = "seedtrust-ops"
"""Every event belongs to the system itself, never to a person."""
KEY_REJECTED_STATUSES = (401, 403)


class PostHog:
    """A client for one PostHog project."""

    def __init__(self, host: str, key: SecretStr, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._host = host
        self._key = key
        self._timeout_seconds = timeout_seconds

    def send(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
        """Send one event.

        PostHog drops a duplicate with the same name, distinct id, day and uuid; the uuid depends on `dedupe_key` alone.

        Args:
            dedupe_key: identifies the event.
            body: {"event": name, "properties": {...}}, or for a failure
                {"exception": {"type", "message", "traceback"}, "properties": {...}}.
            at: when it happened (aware).

        Raises:
            EventRejected: PostHog rejected this event, or `body` has neither form.
            PostHogRejected: PostHog rejected our project key.
            PostHogUnavailable: no response, 429 or 5xx.
        """
        name, properties = _event(body)
        event = {
            "event": name,
            "uuid": str(uuid5(NAMESPACE_URL, f"seedtrust-ops:{dedupe_key}")),
            "timestamp": at.isoformat(),
            "properties": {"distinct_id": DISTINCT_ID, "$process_person_profile": False, "$geoip_disable": True}
            | properties,
        }
        try:
            batch_post(self._key.get_secret_value(), self._host, timeout=self._timeout_seconds, batch=[event])
        except APIError as error:
            raise self._error_for_status(int(error.status)) from None
        except OSError as error:
            # Neither its text nor its traceback: they name file paths and connection pools, which help nobody.
            reason = "it timed out" if isinstance(error, RequestsTimeout) else type(error).__name__
            raise PostHogUnavailable(
                f"PostHog at {self._host} did not respond: {reason}. Check POSTHOG_HOST. Events are retried for a day."
            ) from None

    def _error_for_status(self, status: int) -> Exception:
        response = f"PostHog at {self._host} responded {status}"
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return PostHogUnavailable(f"{response}. Events are retried for a day.")
        if status in KEY_REJECTED_STATUSES:
            return PostHogRejected(f"{response}. Check POSTHOG_API_KEY. Events are retried for a day.")
        return EventRejected(f"{response} to this event, so it will not be retried.")


def _event(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the event's name and properties in PostHog's format; a failure becomes its `$exception` event."""
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
        raise EventRejected(
            f"The row queued for PostHog is not a valid event: {error!r}. It will not be retried."
        ) from None
