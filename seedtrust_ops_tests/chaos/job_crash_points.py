"""Every crash point of `dr_auto_approval`, `report_generation` and the delivery of letters.

A worker dies just before and just after each of its commits, each letter that it sends, each reply of the mail
server to one, and each request to the object store; then time passes, and the next run goes on.
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
from seedtrust_ops_tests.chaos.email_invariants import check_letters
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.injection_points import Moment, moments_of
from seedtrust_ops_tests.chaos.shards import Group, Lane, Outcome, group, in_lanes, open_lane
from seedtrust_ops_tests.chaos.tasks import Errand
from seedtrust_ops_tests.chaos.violations import Kind, Violation
from seedtrust_ops_tests.chaos.worker_environment import Workplace
from seedtrust_ops_tests.chaos.worker_processes import run
from seedtrust_ops_tests.support.office_factory import Office

LETTERS_A_REQUEST = 3
"""To the intended parent, the representative and the case manager."""
AS_TIME_WOULD = (
    "update ops.notifications set next_attempt_at = now() - interval '1 s' where status = 'queued'",
    "update ops.report_claims set not_before = now() - interval '1 s' where not_before is not null",
    "update report_requests set started_at = now() - interval '11 minutes' where status = 2",
)
MOST_ROUNDS = 4


@dataclass(frozen=True)
class OfficeWork:
    """A job's work, the rows that it finds, and what must have become of them."""

    fault: str
    work: str
    prepare: Callable[[Office], None]
    letters: Counter[str]
    query: str
    answer: list[tuple[int | str, ...]]


def a_request_is_due(office: Office) -> None:
    """A request whose date has come, one that is on hold, and one whose date is to come."""
    case = office.case()
    office.request(case)
    office.request(case, on_hold=True)
    office.request(case, auto_authorize_at=datetime.now(UTC) + timedelta(days=1))


def letters_are_due(office: Office) -> None:
    """The letters of an approval that was made by a run that could not deliver them."""
    a_request_is_due(office)
    run_in_transaction(office.sessions, approve_due)


def reports_are_asked_for(office: Office) -> None:
    """Two reports, and one of a kind that there is not."""
    office.case()
    wanted = [
        ("account_balances", "csv"),
        ("account_balances", "xlsx"),
        ("horoscope", "csv"),
    ]
    user_id = office.user("admin")
    with office.sessions.begin() as session:
        session.add_all([ReportRequest(user_id=user_id, kind=kind, format=format_) for kind, format_ in wanted])


APPROVED = "select approved_by, count(*) from disbursement_requests group by approved_by order by approved_by"
WORKS = (
    OfficeWork(
        "dr_auto_approval dies at each step",
        "approve",
        a_request_is_due,
        Counter({"dr-approved": LETTERS_A_REQUEST}),
        APPROVED,
        [("auto:date", 1), (None, 2)],
    ),
    OfficeWork(
        "delivery of letters dies at each step",
        "deliver",
        letters_are_due,
        Counter({"dr-approved": LETTERS_A_REQUEST}),
        APPROVED,
        [("auto:date", 1), (None, 2)],
    ),
    OfficeWork(
        "report_generation dies at each step",
        "report",
        reports_are_asked_for,
        Counter({"report": 2, "report-failed": 1}),
        "select status, count(*) from report_requests group by status order by status",
        [(3, 2), (4, 1)],
    ),
)


@contextmanager
def _template(ground: Ground, work: OfficeWork) -> Iterator[str]:
    with ground.database() as url:
        engine = create_engine(url)
        work.prepare(Office(sessionmaker(engine, expire_on_commit=False)))
        engine.dispose()
        yield str(url.database)


def run_work(ground: Ground, work: OfficeWork, *, one_in: int = 1) -> Group:
    """Run every case of one job's work, or one in so many."""
    with ExitStack() as stack:
        storage = stack.enter_context(start_storage("chaos")).environment if work.work == "report" else {}
        template = stack.enter_context(_template(ground, work))
        with open_lane(ground) as lane, _scene(lane, template, storage) as (place, _):
            told = run(Errand(work.work, place))
            assert told is not None, "A worker that nothing befell did not come to its end."
            assert told.trouble is None, told.trouble
        return group(
            work.fault,
            in_lanes(
                ground,
                moments_of(told.steps)[::one_in],
                lambda lane, moment: _strike(lane, template, storage, work, moment),
            ),
        )


@contextmanager
def _scene(lane: Lane, template: str, storage: dict[str, str]) -> Iterator[tuple[Workplace, Sessions]]:
    with lane.database(template) as (database, sessions):
        # All cases share one mail server, so each has recipients of its own.
        mark = {"mark": f"{secrets.token_hex(4)}-"}
        with sessions.begin() as session:
            session.execute(text("update users set email = :mark || email"), mark)
            session.execute(text("update ops.notifications set recipient_email = :mark || recipient_email"), mark)
        banks, ground = lane.banks, lane.ground
        yield (
            Workplace(
                database,
                banks.url,
                banks.api_key,
                banks.funding_account_id,
                ground.field_key,
                mail=ground.mailbox.environment,
                storage=storage,
            ),
            sessions,
        )


def _strike(lane: Lane, template: str, storage: dict[str, str], work: OfficeWork, moment: Moment) -> Outcome | str:
    with _scene(lane, template, storage) as (place, sessions):
        told = run(Errand(work.work, place, moment))
        if told is not None:
            return f"died {moment}"
        for _ in range(MOST_ROUNDS):
            with sessions.begin() as session:
                for passing in AS_TIME_WOULD:
                    session.execute(text(passing))
            told = run(Errand(work.work, place))
            assert told is not None, "A worker that nothing befell did not come to its end."
            if _is_quiet(sessions):
                break
        with sessions() as session:
            rows = [tuple(row) for row in session.execute(text(work.query))]
        wrong = [] if rows == work.answer else [Violation(Kind.UNEXPLAINED, f"{work.query}: {rows}")]
        letters = check_letters(sessions, lane.ground.mailbox.control, expected=work.letters)
        return Outcome(f"died {moment}", [*wrong, *letters])


def _is_quiet(sessions: Sessions) -> bool:
    waiting = """
        select (select count(*) from ops.notifications where status = 'queued')
             + (select count(*) from report_requests where status in (1, 2))
    """
    with sessions() as session:
        return not session.scalar(text(waiting))


def run_all(ground: Ground) -> Iterator[Group]:
    """Run all of this part."""
    for work in WORKS:
        yield run_work(ground, work)
