"""Rules about backlogs and undelivered notifications, each just below and just above its threshold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.health.backlog import drs_overdue, notifications_failing, reports_waiting
from seedtrust_ops.domain.outbox.store import Destination
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import (
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    Notification,
    OutgoingEvent,
    ReportRequest,
    User,
)
from seedtrust_ops_tests.support.case_factory import CaseFactory

DAY = 86_400


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_pending_report_alerts_after_its_maximum_wait(sessions: sessionmaker[Session], factory: CaseFactory) -> None:
    user = factory.user("admin")
    cases = [(1, 200, False), (2, 9_000, False), (3, 9_000, False), (4, 9_000, False), (1, 320, True)]
    for status, seconds, is_finding in cases:
        with sessions.begin() as session:
            session.add(ReportRequest(user_id=user, kind="disbursements", status=status, requested_at=ago(seconds)))
        with sessions() as session:
            found = reports_waiting(session, max_wait_seconds=300)
        assert [finding.subject for finding in found] == (["report requests"] if is_finding else []), (status, seconds)
    assert found[0].detail.startswith("2 report requests are waiting, and a user has waited for 5 minutes.")


def test_report_wait_counts_from_the_users_last_report(sessions: sessionmaker[Session], factory: CaseFactory) -> None:
    """One user's long queue is no incident while their reports arrive; another user's wait is."""
    busy, other = factory.user("admin"), factory.user("admin")
    for user, seconds, finished, is_finding in [
        (busy, 9_000, 100, False),
        (busy, 9_000, None, False),
        (other, 200, None, False),
        (other, 320, None, True),
    ]:
        status, finished_at = (1, None) if finished is None else (3, ago(finished))
        with sessions.begin() as session:
            session.add(
                ReportRequest(
                    user_id=user,
                    kind="disbursements",
                    status=status,
                    requested_at=ago(seconds),
                    finished_at=finished_at,
                )
            )
        with sessions() as session:
            assert bool(reports_waiting(session, max_wait_seconds=300)) is is_finding, (user, seconds)


@pytest.mark.parametrize(
    ("columns", "case_columns", "payee_is_active", "found"),
    [
        ({"auto_authorize_at": DAY - 900}, {}, True, None),
        ({"auto_authorize_at": DAY + 60}, {}, True, (Severity.HIGH, "1 approvable, but no run")),
        ({"auto_authorize_at": 30 * DAY, "on_hold": True}, {}, True, (Severity.MEDIUM, "1 on hold ({})")),
        ({"auto_authorize_at": DAY + 60, "status": "denied"}, {}, True, None),
        ({"auto_authorize_at": 30 * DAY}, {"status": "closed"}, True, (Severity.HIGH, "1 of a closed case ({})")),
        ({"auto_authorize_at": DAY + 60}, {"status": "closing"}, True, (Severity.HIGH, "1 approvable, but no run")),
        ({"auto_authorize_at": 30 * DAY}, {}, False, (Severity.HIGH, "1 to an inactive payee ({})")),
        ({"auto_authorize_at": None}, {}, True, None),
    ],
    ids=["within a day", "over a day", "on hold", "denied", "closed", "closing", "inactive payee", "no date"],
)
def test_request_past_its_date_is_overdue_whatever_skips_it(
    sessions: sessionmaker[Session],
    factory: CaseFactory,
    columns: dict[str, Any],
    case_columns: dict[str, Any],
    payee_is_active: bool,
    found: tuple[Severity, str] | None,
) -> None:
    case = factory.case(**case_columns)
    factory.change(User, case.surrogate_id, is_active=payee_is_active)
    seconds = columns["auto_authorize_at"]
    request = factory.request(case, **(columns | {"auto_authorize_at": ago(seconds) if seconds is not None else None}))
    with sessions() as session:
        findings = drs_overdue(session, max_overdue_seconds=DAY)
    assert [finding.severity for finding in findings] == ([found[0]] if found else [])
    if found is not None:
        assert found[1].format(request) in findings[0].detail


def test_overdue_requests_are_counted_by_reason_and_named(
    sessions: sessionmaker[Session], factory: CaseFactory
) -> None:
    closed, returned, on_hold = (factory.case(**columns) for columns in ({"status": "closed"}, {}, {}))
    skipped = [factory.request(closed, auto_authorize_at=ago(days * DAY)) for days in range(13, 1, -1)]
    came_back = factory.request(returned, auto_authorize_at=ago(2 * DAY))
    with sessions.begin() as session:
        batch = HuntingtonBatch(status="completed")
        session.add(batch)
        session.flush()
        session.add(
            HuntingtonTransaction(
                batch_id=batch.id,
                disbursement_request_id=came_back,
                method="ach",
                amount_cents=10_000,
                payee_name="Ana Ruiz",
                routing_number="044000024",
                account_number_encrypted="x",
                account_number_last4="6789",
                account_type="checking",
                status="returned",
            )
        )
    factory.request(on_hold, auto_authorize_at=ago(2 * DAY), on_hold=True)
    with sessions.begin() as session:
        session.execute(
            update(DisbursementRequest)
            .where(DisbursementRequest.id == skipped[0])
            .values(auto_authorize_at=text("'-infinity'"))
        )
    with sessions() as session:
        overdue, waiting = drs_overdue(session, max_overdue_seconds=DAY)
    assert (overdue.subject, waiting.subject) == ("disbursement requests", "disbursement requests on hold")
    named = ", ".join(str(number) for number in skipped[:10])
    assert f"12 of a closed case ({named} and 2 more); 1 whose payment came back ({came_back})" in overdue.detail


def failing(sessions: sessionmaker[Session], *destinations: Destination) -> dict[str, Severity]:
    with sessions() as session:
        found = notifications_failing(session, max_wait_seconds=900, destinations=destinations)
        return {finding.subject: finding.severity for finding in found}


@pytest.mark.parametrize(
    ("status", "seconds", "is_failing"),
    [("queued", 700, False), ("queued", 920, True), ("sent", 9_000, False), ("failed", 9_000, False)],
)
def test_queued_email_is_failing_after_its_maximum_wait(
    sessions: sessionmaker[Session], status: str, seconds: float, is_failing: bool
) -> None:
    with sessions.begin() as session:
        session.add(
            Notification(
                dedupe_key="k",
                kind="report",
                recipient_email="a@b.test",
                subject="",
                status=status,
                created_at=ago(seconds),
            )
        )
    assert failing(sessions) == ({"outbox": Severity.HIGH} if is_failing else {})


def test_email_of_an_unknown_kind_is_failing_and_names_the_kind(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.add(
            Notification(dedupe_key="k", kind="birthday", recipient_email="a@b.test", subject="", created_at=ago(920))
        )
    with sessions() as session:
        (finding,) = notifications_failing(session, max_wait_seconds=900, destinations=[])
    assert finding.subject == "unknown kinds of email"
    assert "1 email has been queued for more than 15 minutes, of kinds that this release does not know: birthday." in (
        finding.detail
    )


@pytest.mark.parametrize(
    ("columns", "seconds", "is_failing"),
    [
        ({}, 700, False),
        ({}, 920, True),
        ({"status": "sent"}, 9_000, False),
        ({"status": "failed"}, 9_000, False),
    ],
    ids=["recent", "old", "sent", "abandoned"],
)
def test_waiting_events_are_failing_only_for_configured_destinations(
    sessions: sessionmaker[Session], columns: dict[str, Any], seconds: float, is_failing: bool
) -> None:
    with sessions.begin() as session:
        for destination in Destination:
            session.add(
                OutgoingEvent(
                    destination=destination, dedupe_key=destination, body={}, created_at=ago(seconds), **columns
                )
            )
    subjects = ("PostHog events", "internal API statuses", "chat notifications")
    assert failing(sessions, *Destination) == (dict.fromkeys(subjects, Severity.HIGH) if is_failing else {})
    assert failing(sessions, Destination.INTERNAL_API).keys() == ({"internal API statuses"} if is_failing else set())
    assert failing(sessions) == {}
