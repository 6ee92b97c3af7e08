"""Sends alerts to chat and paging services (Slack, PagerDuty, Teams and others) with the library Apprise.

Which services there are is ALERT_URLS. A URL contains the service's secret, so it appears in no message and no table.
See docs/decisions/alerts.md.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from apprise import Apprise, AppriseAsset, NotifyType, PersistentStoreMode
from pydantic import SecretStr

from seedtrust_ops.ports.events import EventDeferred, EventRejected

TIMEOUT_SECONDS = 3.0
"""The timeout of a connection and of each response: the health sensor's tick must end well within a minute."""
RESOLVED = "resolved"
_TYPES = {"CRITICAL": NotifyType.FAILURE, "HIGH": NotifyType.WARNING, RESOLVED: NotifyType.SUCCESS}

# The library logs what a service has responded, and in its debug messages the URL.
logging.getLogger("apprise").setLevel(logging.CRITICAL)


class AlertService:
    """One chat or paging service; `id` identifies its URL without revealing it."""

    def __init__(self, url: SecretStr, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.id = hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:12]
        # Nothing is stored between two notifications, and no file is written.
        asset = AppriseAsset(storage_mode=PersistentStoreMode.MEMORY)
        service: Any = Apprise.instantiate(url.get_secret_value(), asset=asset)
        service.socket_connect_timeout = service.socket_read_timeout = timeout_seconds
        self._service = service

    @property
    def name(self) -> str:
        """The service's name for people, such as Slack."""
        return str(self._service.service_name)

    def notify(self, title: str, text: str, severity: str) -> None:
        """Send one alert; `severity` is CRITICAL, HIGH or RESOLVED. Raises `EventDeferred` if it was not accepted."""
        accepted = self._service.notify(
            body=text, title=title, notify_type=_TYPES.get(severity, NotifyType.INFO), body_format="text"
        )
        if not accepted:
            raise EventDeferred(f"{self.name} (ALERT_URLS) did not accept the alert. It will be retried for a day.")


class AlertServices:
    """All services of ALERT_URLS, as the sink of the events that are queued for them."""

    def __init__(self, urls: Sequence[SecretStr]) -> None:
        self.by_id = {service.id: service for service in map(AlertService, urls)}

    def send(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
        """Send one alert to the service that it was queued for.

        `body` has service (its id), title, text, severity and is_resolved.

        Raises:
            EventRejected: if that service is no longer in ALERT_URLS.
            EventDeferred: if it did not accept the alert.
        """
        service = self.by_id.get(body["service"])
        if service is None:
            raise EventRejected("The service that this alert was queued for is no longer in ALERT_URLS.")
        service.notify(body["title"], body["text"], RESOLVED if body["is_resolved"] else body["severity"])
