"""What each channel still owes people about an open alert, by what it has delivered."""

from datetime import UTC, datetime

import pytest

from seedtrust_ops.domain.alerts.channel_state import Channel, owed_channels
from seedtrust_ops.tables import Alert, AlertNotification

ALL = set(Channel)
IMMEDIATE = [channel for channel in Channel if channel is not Channel.DIGEST]


@pytest.mark.parametrize(
    ("severity", "delivered", "owed"),
    [
        ("HIGH", [], IMMEDIATE),
        ("MEDIUM", [], [Channel.DIGEST]),
        ("HIGH", [("email", "HIGH"), ("posthog", "HIGH")], [Channel.INTERNAL_API, Channel.ALERT_URLS]),
        ("CRITICAL", [(channel.value, "HIGH") for channel in IMMEDIATE], IMMEDIATE),
        # Better is not worse, and the digest lists an open alert every day with its present severity.
        ("HIGH", [(channel.value, "CRITICAL") for channel in IMMEDIATE], []),
        ("MEDIUM", [("digest", "LOW")], []),
        ("HIGH", [("digest", "MEDIUM")], IMMEDIATE),
    ],
)
def test_channel_owes_an_alert_until_it_has_said_its_severity(
    severity: str, delivered: list[tuple[str, str]], owed: list[Channel]
) -> None:
    alert = Alert(id=1, severity=severity, resolved_at=None)
    rows = [
        AlertNotification(alert_id=1, channel=channel, notification="opened", severity=said, occurrences=1)
        for channel, said in delivered
    ]
    assert owed_channels(alert, rows, ALL, at=datetime.now(UTC)) == owed
