"""Presence: all users are set off site, both viewing tables are emptied, and a second run changes nothing."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.user_presence import ClearedPresence, clear_presence
from seedtrust_ops.tables import User, ViewingDisbursementRequest, ViewingPayment
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.factories import Company


def test_presence_is_cleared_once_for_all_users(company: Company, sessions: sessionmaker[Session]) -> None:
    factory = CaseFactory(sessions)
    users = [factory.user("admin", is_on_site=True), factory.user("case_manager", is_on_site=True, is_active=False)]
    request = factory.request(factory.case())
    payments = [transaction.id for transaction in company.transactions(company.batch([100, 200]))]
    with sessions.begin() as session:
        session.add_all(ViewingDisbursementRequest(user_id=user, disbursement_request_id=request) for user in users)
        session.add_all(ViewingPayment(user_id=users[0], huntington_transaction_id=payment) for payment in payments)
    assert run_in_transaction(sessions, clear_presence) == ClearedPresence(
        users=2, viewed_requests=2, viewed_payments=2
    )
    with sessions() as session:
        assert session.scalars(select(User.id).where(User.is_on_site)).all() == []
        assert session.scalar(select(func.count()).select_from(ViewingDisbursementRequest)) == 0
        assert session.scalar(select(func.count()).select_from(ViewingPayment)) == 0
    assert run_in_transaction(sessions, clear_presence) == ClearedPresence(
        users=0, viewed_requests=0, viewed_payments=0
    )


def test_locked_user_is_left_on_site_until_the_next_run(sessions: sessionmaker[Session]) -> None:
    factory = CaseFactory(sessions)
    locked, _ = factory.user("admin", is_on_site=True), factory.user("admin", is_on_site=True)
    with sessions() as other:
        other.execute(select(User.id).where(User.id == locked).with_for_update())
        assert run_in_transaction(sessions, clear_presence).users == 1
    assert run_in_transaction(sessions, clear_presence).users == 1
