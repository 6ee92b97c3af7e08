"""A request of which a row is locked or refused is not approved and is named; all others are approved."""

from collections.abc import Iterator
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import URL

from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.approvals.writer import Approve, RequestsNotApproved, approve, require_all_approved
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.tables import DisbursementRequest
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.databases import impatient_sessions

JOBS = {"by date": approve_due, "by rule": partial(approve_by_rules, zone=ZoneInfo("America/New_York"))}
REFUSE = """
create function platform_guard() returns trigger language plpgsql as $$ begin
    if new.id = {request} then raise exception 'not this one: Dana'; end if;
    return new;
end $$;
create trigger guard before update on disbursement_requests for each row execute function platform_guard()
"""


@pytest.fixture
def impatient(database_url: URL) -> Iterator[Sessions]:
    """Sessions that wait for a locked row for a short time."""
    with impatient_sessions(database_url, 0.3) as sessions:
        yield sessions


@pytest.mark.parametrize("work", JOBS.values(), ids=JOBS)
def test_locked_request_is_not_approved_and_named(factory: CaseFactory, impatient: Sessions, work: Approve) -> None:
    factory.rule()
    requests = [factory.request(factory.case()) for _ in range(9)]
    with factory.sessions() as other:
        other.execute(select(DisbursementRequest.id).where(DisbursementRequest.id == requests[4]).with_for_update())
        report = approve(impatient, work)
    assert sorted(factory.approvals()) == [*requests[:4], *requests[5:]]
    assert (report.count, len(report.shown), list(report.failures)) == (8, 8, [requests[4]])
    named = rf"request {requests[4]} \(another application holds one of its rows locked\)"
    with pytest.raises(RequestsNotApproved, match=named):
        require_all_approved(report)
    again = approve(impatient, work)
    assert (again.count, again.failures) == (1, {})
    require_all_approved(again)


@pytest.mark.parametrize("work", JOBS.values(), ids=JOBS)
def test_request_that_a_trigger_refuses_is_named_without_data(
    factory: CaseFactory, impatient: Sessions, work: Approve
) -> None:
    factory.rule()
    requests = [factory.request(factory.case()) for _ in range(3)]
    with factory.sessions.begin() as session:
        session.execute(text(REFUSE.format(request=requests[0])))
    report = approve(impatient, work)
    assert sorted(factory.approvals()) == requests[1:]
    with pytest.raises(RequestsNotApproved, match="platform_guard") as error:
        require_all_approved(report)
    assert "Dana" not in str(error.value)
