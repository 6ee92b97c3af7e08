"""Part `jobs`: a worker of `dr_auto_approval`, `report_generation` or email delivery crashes at each I/O step.

It crashes just before and just after each commit, each email it sends, each reply of the mail server to one, and each
request to the object store. Then time passes and the next run continues.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.sandbox.external_services.control_client import start_storage
from seedtrust_ops.tables import ReportRequest
from seedtrust_ops_tests.chaos.email_invariants import check_emails
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.injection_points import InjectionPoint, list_injection_points
from seedtrust_ops_tests.chaos.shards import (
    CaseResult,
    ScenarioResult,
    Shard,
    collect_results,
    open_shard,
    run_in_shards,
)
from seedtrust_ops_tests.chaos.tasks import Task
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind
from seedtrust_ops_tests.chaos.worker_config import WorkerConfig
from seedtrust_ops_tests.chaos.worker_processes import run_worker
from seedtrust_ops_tests.support.case_factory import CaseFactory

EMAILS_PER_APPROVAL = 3
"""To the intended parent, the representative and the case manager."""
TIME_PASSES = (
    "update ops.notifications set next_attempt_at = now() - interval '1 s' where status = 'queued'",
    "update ops.report_claims set not_before = now() - interval '1 s' where not_before is not null",
    "update report_requests set started_at = now() - interval '11 minutes' where status = 2",
)
MAX_ROUNDS = 4


@dataclass(frozen=True)
class JobScenario:
    """A job's task, the rows that it finds, and the emails and rows that must result.

    `name` is the label in the results table; `expected_emails` counts them by kind, and `expected_rows` are the rows
    that `query` must return.
    """

    name: str
    task_name: str
    prepare: Callable[[CaseFactory], None]
    expected_emails: Counter[str]
    query: str
    expected_rows: list[tuple[int | str, ...]]


def add_due_request(factory: CaseFactory) -> None:
    """Add a request that is due, one on hold, and one that is not due yet."""
    case = factory.case()
    factory.request(case)
    factory.request(case, on_hold=True)
    factory.request(case, auto_authorize_at=datetime.now(UTC) + timedelta(days=1))


def add_due_emails(factory: CaseFactory) -> None:
    """Add the emails of an approval run that could not send them."""
    add_due_request(factory)
    run_in_transaction(factory.sessions, approve_due)


def add_report_requests(factory: CaseFactory) -> None:
    """Add two valid report requests and one of an unknown kind."""
    factory.case()
    wanted = [
        ("account_balances", "csv"),
        ("account_balances", "xlsx"),
        ("horoscope", "csv"),
    ]
    user_id = factory.user("admin")
    with factory.sessions.begin() as session:
        session.add_all([ReportRequest(user_id=user_id, kind=kind, format=format_) for kind, format_ in wanted])


APPROVALS = "select approved_by, count(*) from disbursement_requests group by approved_by order by approved_by"
SCENARIOS = (
    JobScenario(
        "dr_auto_approval crashes at each step",
        "approve",
        add_due_request,
        Counter({"dr-approved": EMAILS_PER_APPROVAL}),
        APPROVALS,
        [("auto:date", 1), (None, 2)],
    ),
    JobScenario(
        "email delivery crashes at each step",
        "deliver",
        add_due_emails,
        Counter({"dr-approved": EMAILS_PER_APPROVAL}),
        APPROVALS,
        [("auto:date", 1), (None, 2)],
    ),
    JobScenario(
        "report_generation crashes at each step",
        "report",
        add_report_requests,
        Counter({"report": 2, "report-failed": 1}),
        "select status, count(*) from report_requests group by status order by status",
        [(3, 2), (4, 1)],
    ),
)


@contextmanager
def _template(environment: ChaosEnvironment, scenario: JobScenario) -> Iterator[str]:
    with environment.database() as url:
        engine = create_engine(url)
        scenario.prepare(CaseFactory(sessionmaker(engine, expire_on_commit=False)))
        engine.dispose()
        yield str(url.database)


def run_job_scenario(environment: ChaosEnvironment, scenario: JobScenario, *, one_in: int = 1) -> ScenarioResult:
    """Run every case of one job's scenario, or only one in `one_in`."""
    with ExitStack() as stack:
        storage = stack.enter_context(start_storage("chaos")).environment if scenario.task_name == "report" else {}
        template = stack.enter_context(_template(environment, scenario))
        with open_shard(environment) as shard, _open_case(shard, template, storage) as (config, _):
            result = run_worker(Task(scenario.task_name, config))
            assert result is not None, "A worker without an injected fault crashed."
            assert result.error is None, result.error
        return collect_results(
            scenario.name,
            run_in_shards(
                environment,
                list_injection_points(result.steps)[::one_in],
                lambda shard, point: _run_case(shard, template, storage, scenario, point),
            ),
        )


@contextmanager
def _open_case(shard: Shard, template: str, storage: dict[str, str]) -> Iterator[tuple[WorkerConfig, Sessions]]:
    with shard.database(template) as (database, sessions):
        # All cases share one mail server, so each case has its own recipients.
        prefix = {"prefix": f"{secrets.token_hex(4)}-"}
        with sessions.begin() as session:
            session.execute(text("update users set email = :prefix || email"), prefix)
            session.execute(text("update ops.notifications set recipient_email = :prefix || recipient_email"), prefix)
        banks, environment = shard.banks, shard.environment
        yield (
            WorkerConfig(
                database,
                banks.url,
                banks.api_key,
                banks.funding_account_id,
                environment.field_key,
                mail=environment.mailbox.environment,
                storage=storage,
            ),
            sessions,
        )


def _run_case(
    shard: Shard, template: str, storage: dict[str, str], scenario: JobScenario, point: InjectionPoint
) -> CaseResult | str:
    with _open_case(shard, template, storage) as (config, sessions):
        if run_worker(Task(scenario.task_name, config, point)) is not None:
            return f"crashed {point}"
        for _ in range(MAX_ROUNDS):
            with sessions.begin() as session:
                for statement in TIME_PASSES:
                    session.execute(text(statement))
            result = run_worker(Task(scenario.task_name, config))
            assert result is not None, "A worker without an injected fault crashed."
            if _is_finished(sessions):
                break
        with sessions() as session:
            rows = [tuple(row) for row in session.execute(text(scenario.query))]
        violations = (
            []
            if rows == scenario.expected_rows
            else [
                Violation(
                    ViolationKind.UNEXPLAINED,
                    f"{scenario.query}: returned {rows}, expected {scenario.expected_rows}.",
                )
            ]
        )
        violations += check_emails(sessions, shard.environment.mailbox.control, expected=scenario.expected_emails)
        return CaseResult(f"crashed {point}", violations)


def _is_finished(sessions: Sessions) -> bool:
    unfinished = """
        select (select count(*) from ops.notifications where status = 'queued')
             + (select count(*) from report_requests where status in (1, 2))
    """
    with sessions() as session:
        return not session.scalar(text(unfinished))


def run_all(environment: ChaosEnvironment) -> Iterator[ScenarioResult]:
    """Run every scenario of this part."""
    for scenario in SCENARIOS:
        yield run_job_scenario(environment, scenario)
