"""A rehearsal keeps nothing, sees its own rows alone, and gives way to whoever works on the same ones."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import Decision, Looks, looks_of, record_decisions
from seedtrust_ops.domain.shadow_mode.rollback_session import Rehearsal, RowsInUse, written_here
from seedtrust_ops.tables import ShadowDecision, Switch, User
from seedtrust_ops_tests.support.office_factory import Office

JOB = "off_site_tracking"


def set_on_site(session: Session) -> int:
    return len(session.execute(update(User).values(is_on_site=True).returning(User.id)).all())


def on_site(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(User).where(User.is_on_site)) or 0


def test_what_is_committed_in_a_rehearsal_is_read_and_not_kept(sessions: sessionmaker[Session]) -> None:
    office = Office(sessions)
    office.user("admin")
    read: list[int] = []

    def reader(session: Session) -> list[Decision]:
        read.append(on_site(session))
        return [Decision("everybody", "set on site")]

    rehearsal = Rehearsal(sessions, read=reader)
    assert rehearsal.run(partial(run_in_transaction, work=set_on_site)) == 1
    assert read == [1]
    assert rehearsal.decisions == [Decision("everybody", "set on site")]
    with sessions() as session:
        assert on_site(session) == 0


def test_each_transaction_begins_with_what_is_prepared(sessions: sessionmaker[Session]) -> None:
    Office(sessions).user("admin")

    def prepare(session: Session) -> None:
        session.add(Switch(name="prepared"))
        session.flush()

    rehearsal = Rehearsal(sessions, prepare)
    for _ in range(2):
        names = rehearsal.run(
            partial(run_in_transaction, work=lambda session: session.scalars(select(Switch.name)).all())
        )
        assert names == ["prepared"]


def test_an_isolation_level_is_the_one_that_the_job_asks_for(sessions: sessionmaker[Session]) -> None:
    def level(session: Session) -> str:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        return str(session.scalar(text("show transaction_isolation")))

    assert Rehearsal(sessions).run(partial(run_in_transaction, work=level)) == "repeatable read"


def test_only_rows_of_this_transaction_count_as_written_here(sessions: sessionmaker[Session]) -> None:
    office = Office(sessions)
    office.user("admin")

    def count(session: Session) -> int:
        session.add(User(email="new@office.test", full_name="New", role="admin"))
        session.flush()
        # Somebody else's, committed in between, is seen and was not written here.
        office.user("admin")
        seen = select(func.count()).select_from(User)
        assert session.scalar(seen) == 3
        return session.scalar(seen.where(written_here(User))) or 0

    assert Rehearsal(sessions).run(partial(run_in_transaction, work=count)) == 1


def test_it_gives_way_to_whoever_holds_the_rows_and_succeeds_afterwards(sessions: sessionmaker[Session]) -> None:
    Office(sessions).user("admin")
    rehearsal = Rehearsal(sessions)
    with sessions() as theirs:
        set_on_site(theirs)
        with pytest.raises(RowsInUse, match="gave way and changed nothing"):
            rehearsal.run(partial(run_in_transaction, work=set_on_site))
        # The other side never noticed.
        theirs.commit()
    assert rehearsal.run(partial(run_in_transaction, work=set_on_site)) == 1


def test_a_decision_that_is_made_again_is_one_row_with_its_newest_detail(sessions: sessionmaker[Session]) -> None:
    began = datetime.now(UTC)
    for shortfall, later in ((5, 0), (7, 60)):
        twice = [Decision("account 1", "open", {"cents": shortfall}), Decision("account 2", "open")] * 2
        record = partial(record_decisions, job=JOB, decisions=twice, began=began + timedelta(seconds=later))
        assert run_in_transaction(sessions, record) == (2 if shortfall == 5 else 0)
    with sessions() as session:
        rows = session.execute(
            select(ShadowDecision.subject, ShadowDecision.times, ShadowDecision.detail).order_by(ShadowDecision.subject)
        ).all()
        looks = looks_of(session, JOB)
    assert [tuple(row) for row in rows] == [("account 1", 2, {"cents": 7}), ("account 2", 2, {}), ("everything", 2, {})]
    assert looks == Looks(began, began + timedelta(seconds=60))
