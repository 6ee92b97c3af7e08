"""The demo's table of who was notified: by evidence of delivery, and nobody if there is none."""

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.demo.environment import ON_CALL
from seedtrust_ops.sandbox.demo.notified import Notified, read_notified


def test_notified_are_those_to_whom_something_was_delivered(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.alerts (id, rule, subject, severity) values (1, 'batch_stuck', 'a', 'HIGH'),"
                " (2, 'unknown_transfer', 'b', 'CRITICAL'), (3, 'unknown_transfer', 'c', 'CRITICAL')"
            )
        )
        session.execute(
            text(
                "insert into ops.alert_notifications (alert_id, channel, notification, severity) values"
                " (1, 'email', 'skipped', 'HIGH'), (2, 'email', 'opened', 'CRITICAL'),"
                " (3, 'email', 'resolved', 'CRITICAL'), (3, 'posthog', 'opened', 'CRITICAL')"
            )
        )
        session.execute(
            text(
                "insert into users (id, email, full_name, role) values (1, 'ana@example.test', 'Ana',"
                " 'escrow_specialist')"
            )
        )
        session.execute(
            text(
                "insert into ops.notifications (dedupe_key, kind, recipient_id, recipient_email, subject, status)"
                " select number, kind, 1, 'ana@example.test', '', status from (values"
                " ('1', 'transfer-returned', 'sent'), ('2', 'transfer-returned', 'sent'),"
                " ('3', 'transfer-returned', 'queued'), ('4', 'dr-approved', 'sent')) as email (number, kind, status)"
            )
        )
    with sessions() as session:
        assert read_notified(session) == [
            Notified("unknown_transfer", "CRITICAL", 2, [f"email to {ON_CALL}", "PostHog"]),
            Notified("batch_stuck", "HIGH", 1, []),
            Notified("transfer returned", "", 2, ["email to 1 escrow specialist"]),
        ]
