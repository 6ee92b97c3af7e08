"""Watches whether an incident is detected and who is notified: alerts in the database, emails, PostHog, internal API.

It reads only what people would see, and knows nothing of how the incident was caused.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
from seedtrust_ops.sandbox.gameday.timeouts import ON_CALL
from seedtrust_ops.tables import Alert

EMAIL_CHANNEL = f"email to {ON_CALL}"


@dataclass
class Detection:
    """What is known so far about an incident's detection; timestamps are UTC."""

    rules: Collection[str]
    """The alert rules that count as detecting the incident."""
    since: datetime
    """When the incident began; earlier alerts do not count."""
    rule: str | None = None
    """The rule that detected it first."""
    detected_at: datetime | None = None
    notified: set[str] = field(default_factory=set)
    """The channels that were notified."""

    def update(self, env: DemoEnvironment) -> None:
        """Check all sources again."""
        self._check_alerts(env)
        self._check_emails(env)
        self._check_posts(env)

    def _record(self, rule: str, at: datetime) -> None:
        if self.detected_at is None or at < self.detected_at:
            self.rule, self.detected_at = rule, at

    def _check_alerts(self, env: DemoEnvironment) -> None:
        query = select(Alert).where(Alert.rule.in_(self.rules), Alert.opened_at >= self.since).order_by(Alert.opened_at)
        try:
            with env.sessions() as session:
                first = session.scalars(query.limit(1)).first()
        except DBAPIError:
            # The incident may be the database itself; then an email is the first sign.
            return
        if first is not None:
            self._record(first.rule, first.opened_at)

    def _check_emails(self, env: DemoEnvironment) -> None:
        try:
            emails = env.stack.mailbox.control.emails(ON_CALL)
        except httpx.HTTPError:
            # The incident may be the mail server itself.
            return
        for email in emails:
            at = datetime.fromisoformat(email.at)
            rule = next((rule for rule in self.rules if rule in email.text), None)
            if at >= self.since and rule is not None:
                self._record(rule, at)
                self.notified.add(EMAIL_CHANNEL)

    def _check_posts(self, env: DemoEnvironment) -> None:
        services = env.stack.services
        for event in services.posthog.events("alert_opened"):
            if event["properties"].get("rule") in self.rules and _parse(event["timestamp"]) >= self.since:
                self.notified.add("PostHog")
        for post in services.internal_api.posted_statuses():
            if post["component"] == "jobs" and post["status"] != "up" and _parse(post["checked_at"]) >= self.since:
                self.notified.add("internal API")


def _parse(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp).astimezone(UTC)
