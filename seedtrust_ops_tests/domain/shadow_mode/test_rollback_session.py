"""A dry run commits nothing, reads only its own changes, and never blocks another transaction on the same rows."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import Decision, EvaluationTimes, evaluation_times, record_decisions
from seedtrust_ops.domain.shadow_mode.rollback_session import DryRun, RowsInUse, written_in_this_transaction
from seedtrust_ops.tables import ShadowDecision, Switch, User
from seedtrust_ops_tests.support.case_factory import CaseFactory

JOB = "off_site_tracking"


def set_on_site(session: Session) -> int:
    return len(session.execute(update(User).values(is_on_site=True).returning(User.id)).all())


def on_site(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(User).where(User.is_on_site)) or 0


def test_dry_run_commit_is_read_and_rolled_back(sessions: sessionmaker[Session]) -> None:
    factory = CaseFactory(sessions)
    factory.user("admin")
    read: list[int] = []

    def reader(session: Session) -> list[Decision]:
        read.append(on_site(session))
        return [Decision("all users", "set on site")]

    dry_run = DryRun(sessions, read=reader)
    assert dry_run.run(partial(run_in_transaction, work=set_on_site)) == 1
    assert read == [1]
    assert dry_run.decisions == [Decision("all users", "set on site")]
    with sessions() as session:
        assert on_site(session) == 0


def test_prepare_runs_at_the_start_of_each_transaction(sessions: sessionmaker[Session]) -> None:
    CaseFactory(sessions).user("admin")

    def prepare(session: Session) -> None:
        session.add(Switch(name="prepared"))
        session.flush()

    dry_run = DryRun(sessions, prepare)
    for _ in range(2):
        names = dry_run.run(
            partial(run_in_transaction, work=lambda session: session.scalars(select(Switch.name)).all())
        )
        assert names == ["prepared"]


def test_isolation_level_requested_by_the_job_is_used(sessions: sessionmaker[Session]) -> None:
    def level(session: Session) -> str:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        return str(session.scalar(text("show transaction_isolation")))

    assert DryRun(sessions).run(partial(run_in_transaction, work=level)) == "repeatable read"


def test_only_rows_of_this_transaction_count_as_written_here(sessions: sessionmaker[Session]) -> None:
    factory = CaseFactory(sessions)
    factory.user("admin")

    def count(session: Session) -> int:
        session.add(User(email="new@office.test", full_name="New", role="admin"))
        session.flush()
        # A row that another transaction commits meanwhile is visible, but was not written here.
        factory.user("admin")
        seen = select(func.count()).select_from(User)
        assert session.scalar(seen) == 3
        return session.scalar(seen.where(written_in_this_transaction(User))) or 0

    assert DryRun(sessions).run(partial(run_in_transaction, work=count)) == 1


def test_locked_rows_stop_the_dry_run_which_succeeds_later(sessions: sessionmaker[Session]) -> None:
    CaseFactory(sessions).user("admin")
    dry_run = DryRun(sessions)
    with sessions() as theirs:
        set_on_site(theirs)
        with pytest.raises(RowsInUse, match="Nothing was changed"):
            dry_run.run(partial(run_in_transaction, work=set_on_site))
        # The other transaction is not affected.
        theirs.commit()
    assert dry_run.run(partial(run_in_transaction, work=set_on_site)) == 1


def test_repeated_decision_is_one_row_with_its_newest_detail(sessions: sessionmaker[Session]) -> None:
    began = datetime.now(UTC)
    for shortfall, later in ((5, 0), (7, 60)):
        twice = [Decision("account 1", "open", {"cents": shortfall}), Decision("account 2", "open")] * 2
        record = partial(record_decisions, job=JOB, decisions=twice, began=began + timedelta(seconds=later))
        assert run_in_transaction(sessions, record) == (2 if shortfall == 5 else 0)
    with sessions() as session:
        rows = session.execute(
            select(ShadowDecision.subject, ShadowDecision.times, ShadowDecision.detail).order_by(ShadowDecision.subject)
        ).all()
        times = evaluation_times(session, JOB)
    assert [tuple(row) for row in rows] == [("account 1", 2, {"cents": 7}), ("account 2", 2, {}), ("everything", 2, {})]
    assert times == EvaluationTimes(began, began + timedelta(seconds=60))
