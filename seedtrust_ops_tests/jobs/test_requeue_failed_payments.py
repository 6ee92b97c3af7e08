"""`requeue_failed_payments` as people launch it: a list first, then a draft batch that nothing queues."""

import pytest
from sqlalchemy import select

from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import HuntingtonBatch
from seedtrust_ops_tests.jobs.job_runner import JobResult, run
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("bank_environment", "no_retry_delays")

NAME = "requeue_failed_payments"
LIVE = {"ops": {NAME: {"config": {"dry_run": False}}}}


@pytest.fixture
def failed_request(company: Company) -> int:
    case = company.case()
    request_id = company.request(case, 5_000)
    company.transaction(
        company.batch(case=case, status="failed"), request_id, 5_000, status="failed", failure_reason="limit_exceeded"
    )
    return request_id


def statuses(company: Company) -> list[str]:
    with company.sessions() as session:
        return list(session.scalars(select(HuntingtonBatch.status).order_by(HuntingtonBatch.id)))


def shown(result: JobResult) -> dict[str, str]:
    return {name: str(value.value) for name, value in result.metadata.items()}


def test_launch_without_a_config_only_lists_the_payments(company: Company, failed_request: int) -> None:
    result = run(NAME)
    assert result.returned == {
        "dry_run": True,
        "batch_id": None,
        "payments": 1,
        "amount_cents": 5_000,
        "left_out": 0,
    }
    assert f"| {failed_request} | $50.00 | " in shown(result)["Payments (first 1 of 1)"]
    assert statuses(company) == ["failed"]


def test_draft_is_not_queued(company: Company, failed_request: int) -> None:
    result = run(NAME, LIVE)
    assert result.returned["batch_id"] is not None
    assert statuses(company) == ["failed", "draft"]
    (drafted,) = company.transactions(result.returned["batch_id"])
    assert (drafted.disbursement_request_id, drafted.status) == (failed_request, "pending")


def test_run_in_shadow_mode_drafts_nothing(company: Company, failed_request: int, set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_SHADOW="1")
    assert run(NAME, LIVE).success
    assert statuses(company) == ["failed"]
    assert company.request_status(failed_request) == "approved"


def test_job_is_of_medium_severity_and_expires_after_an_hour() -> None:
    policy = job_policy(NAME)
    assert policy.severity is Severity.MEDIUM
    assert policy.expires_after is not None
    assert policy.expires_after.total_seconds() == 3600
