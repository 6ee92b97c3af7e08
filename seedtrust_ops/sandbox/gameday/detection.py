"""Looks for who noticed a trouble and who was told: alerts in the database, letters, PostHog, the internal API.

It reads what people would read, and nothing of how the trouble was caused.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.gameday.timeouts import ON_CALL
from seedtrust_ops.tables import Alert

LETTER = f"letter to {ON_CALL}"


@dataclass
class Notice:
    """What is known of a trouble's being noticed so far; the moment is UTC."""

    rules: Collection[str]
    since: datetime
    by: str | None = None
    at: datetime | None = None
    told: set[str] = field(default_factory=set)

    def look(self, stage: Stage) -> None:
        """Look again at everything."""
        self._look_at_alerts(stage)
        self._look_at_letters(stage)
        self._look_at_posts(stage)

    def _noticed(self, rule: str, at: datetime) -> None:
        if self.at is None or at < self.at:
            self.by, self.at = rule, at

    def _look_at_alerts(self, stage: Stage) -> None:
        query = select(Alert).where(Alert.rule.in_(self.rules), Alert.opened_at >= self.since).order_by(Alert.opened_at)
        try:
            with stage.sessions() as session:
                first = session.scalars(query.limit(1)).first()
        except DBAPIError:
            # The trouble may be the database: then a letter is the first that anybody sees.
            return
        if first is not None:
            self._noticed(first.rule, first.opened_at)

    def _look_at_letters(self, stage: Stage) -> None:
        try:
            letters = stage.world.mailbox.control.letters(ON_CALL)
        except httpx.HTTPError:
            # The trouble may be the mail server.
            return
        for letter in letters:
            at = datetime.fromisoformat(letter.at)
            rule = next((rule for rule in self.rules if rule in letter.text), None)
            if at >= self.since and rule is not None:
                self._noticed(rule, at)
                self.told.add(LETTER)

    def _look_at_posts(self, stage: Stage) -> None:
        outside = stage.world.outside
        for event in outside.posthog.events("alert_opened"):
            if event["properties"].get("rule") in self.rules and _moment(event["timestamp"]) >= self.since:
                self.told.add("PostHog")
        for post in outside.internal_api.posts():
            if post["component"] == "jobs" and post["status"] != "up" and _moment(post["checked_at"]) >= self.since:
                self.told.add("internal API")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
