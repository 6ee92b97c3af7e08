"""Users take turns at the queue of report requests, keep to a limit, and cannot stop it with what they request."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reports.parameters import InvalidReportRequest
from seedtrust_ops.domain.reports.request_limit import MAX_WAITING_REPORTS, RefusedRequests, limit_waiting_reports
from seedtrust_ops.domain.reports.request_queue import (
    ClaimedRequest,
    claim_next_request,
    read_params,
    record_failed,
    requeue_request,
)
from seedtrust_ops.tables import Notification, ReportClaim, ReportRequest
from seedtrust_ops_tests.support.case_factory import CaseFactory

TODAY = date(2026, 3, 3)


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


def insert_requests(sessions: sessionmaker[Session], user_id: int, count: int, *, minutes_ago: int) -> None:
    """Insert many pending requests of one user, a second apart."""
    with sessions.begin() as session:
        session.execute(
            text(
                "insert into report_requests (user_id, kind, requested_at) select :user, 'account_balances',"
                " now() - make_interval(mins => :minutes) + n * interval '1 second' from generate_series(1, :count) n"
            ),
            {"user": user_id, "minutes": minutes_ago, "count": count},
        )


def claim(sessions: sessionmaker[Session]) -> ClaimedRequest:
    claimed = run_in_transaction(sessions, claim_next_request)
    assert claimed is not None
    return claimed


def claim_users(sessions: sessionmaker[Session], count: int) -> list[int]:
    return [claim(sessions).user_id for _ in range(count)]


def test_turns_go_round_however_many_requests_one_user_has(
    sessions: sessionmaker[Session], factory: CaseFactory
) -> None:
    busy, second, third = (factory.user("admin") for _ in range(3))
    insert_requests(sessions, busy, 20_000, minutes_ago=600)
    insert_requests(sessions, second, 2, minutes_ago=20)
    insert_requests(sessions, third, 2, minutes_ago=10)
    assert claim_users(sessions, 7) == [busy, second, third, busy, second, third, busy]


def test_turn_is_not_kept_by_a_request_that_is_retried(sessions: sessionmaker[Session], factory: CaseFactory) -> None:
    busy, other = factory.user("admin"), factory.user("admin")
    insert_requests(sessions, busy, 3, minutes_ago=600)
    insert_requests(sessions, other, 1, minutes_ago=10)
    request = claim(sessions)
    assert request.user_id == busy
    run_in_transaction(sessions, lambda session: requeue_request(session, request))
    assert claim_users(sessions, 2) == [other, busy]


def test_turn_passes_on_while_another_worker_claims(sessions: sessionmaker[Session], factory: CaseFactory) -> None:
    first, second = factory.user("admin"), factory.user("admin")
    insert_requests(sessions, first, 1, minutes_ago=20)
    insert_requests(sessions, second, 1, minutes_ago=10)
    with sessions.begin() as session:
        claimed = claim_next_request(session)
        assert claimed is not None
        assert claimed.user_id == first
        assert claim(sessions).user_id == second
        assert run_in_transaction(sessions, claim_next_request) is None


def test_newest_requests_beyond_the_limit_fail_with_one_email(
    sessions: sessionmaker[Session], factory: CaseFactory
) -> None:
    busy, other = factory.user("surrogate"), factory.user("admin")
    insert_requests(sessions, busy, 20_000, minutes_ago=600)
    insert_requests(sessions, other, MAX_WAITING_REPORTS, minutes_ago=10)
    limit = partial(limit_waiting_reports, today=TODAY)
    assert run_in_transaction(sessions, limit) == [RefusedRequests(busy, 20_000 - MAX_WAITING_REPORTS)]
    assert run_in_transaction(sessions, limit) == []
    insert_requests(sessions, busy, 5, minutes_ago=0)
    assert run_in_transaction(sessions, limit) == [RefusedRequests(busy, 5)]
    with sessions() as session:
        requests: Sequence[Any] = session.execute(
            select(ReportRequest.user_id, ReportRequest.status, ReportRequest.error).order_by(ReportRequest.id)
        ).all()
        (email,) = session.scalars(select(Notification))
    pending = [row.user_id for row in requests if row.status == 1]
    assert pending == [busy] * MAX_WAITING_REPORTS + [other] * MAX_WAITING_REPORTS
    assert [row.status for row in requests[:101]] == [1] * 100 + [4]
    assert str(requests[100].error).startswith("Not accepted: 100 of your reports were waiting already.")
    assert (email.kind, email.recipient_id) == ("reports-refused", busy)
    assert len(email.variables["rows"]) + email.variables["rows_left_out"] == 20_000 - MAX_WAITING_REPORTS


def test_request_waiting_to_be_retried_is_not_refused(sessions: sessionmaker[Session], factory: CaseFactory) -> None:
    user = factory.user("admin")
    insert_requests(sessions, user, MAX_WAITING_REPORTS + 1, minutes_ago=10)
    retried = claim(sessions)
    run_in_transaction(sessions, lambda session: requeue_request(session, retried))
    with sessions.begin() as session:
        # Its time says that it is the newest.
        session.execute(
            update(ReportRequest).where(ReportRequest.id == retried.id).values(requested_at=datetime.now(UTC))
        )
    run_in_transaction(sessions, partial(limit_waiting_reports, today=TODAY))
    with sessions.begin() as session:
        assert session.get_one(ReportRequest, retried.id).status == 1
        session.execute(update(ReportClaim).values(not_before=datetime.now(UTC) - timedelta(minutes=1)))
    assert retried.id in {claim(sessions).id for _ in range(MAX_WAITING_REPORTS + 1)}


UNREADABLE = {
    "a long text": "jsonb_build_object('from', repeat('x', 20000000))",
    "a long text that was compressed": "jsonb_build_object('from', repeat('x', 60000))",
    "a number of 5,000 digits": "'{\"case_id\": 1e5000}'",
    "numbers of 131,000 digits": "jsonb_build_array(1e131071, 1e131071, 1e131071)",
    "deep lists": "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
    "a gigabyte of escaped control characters": "jsonb_build_object('from', repeat(chr(1), 190000000))",
}


@pytest.mark.parametrize("params", UNREADABLE)
def test_unreadable_params_fail_their_own_request(
    sessions: sessionmaker[Session], factory: CaseFactory, params: str
) -> None:
    with sessions.begin() as session:
        session.execute(
            text(f"insert into report_requests (user_id, kind, params) values (:user, 'x', {UNREADABLE[params]})"),
            {"user": factory.user("admin")},
        )
    request = claim(sessions)
    with sessions.begin() as session, pytest.raises(InvalidReportRequest, match="parameters cannot be read"):
        read_params(session, request)
    run_in_transaction(sessions, lambda session: record_failed(session, request, "unreadable"))
    with sessions() as session:
        assert session.scalars(select(ReportRequest.status)).one() == 4


def test_long_kind_is_claimed_cut(sessions: sessionmaker[Session], factory: CaseFactory) -> None:
    factory._add(ReportRequest(user_id=factory.user("admin"), kind="x" * 20_000_000))
    assert claim(sessions).kind == "x" * 100
