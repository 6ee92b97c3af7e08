"""Sentences about a statement that the database refused: which row, as far as that is known, and no personal data."""

import dagster as dg
import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops.tables import Account
from seedtrust_ops_tests.support.databases import impatient_sessions
from seedtrust_ops_tests.support.factories import Company


@pytest.mark.usefixtures("jobs_environment")
def test_locked_row_is_told_from_an_unreachable_database(company: Company, database_url: URL) -> None:
    account = company.case().account_id
    with company.sessions() as other, impatient_sessions(database_url, 0.1) as sessions, sessions() as session:
        other.execute(select(Account.id).where(Account.id == account).with_for_update())
        with pytest.raises(dg.Failure, match="holds a row of table accounts locked") as failure, user_facing_failures():
            session.execute(text("update accounts set minimum_balance_cents = 1"))
    assert failure.value.allow_retries


def test_refused_row_is_named_by_its_number(sessions: sessionmaker[Session]) -> None:
    named = pytest.raises(dg.Failure, match=r"foreign key.*The row: case_id 7\.$")
    with sessions() as session, named, user_facing_failures():
        session.execute(text("insert into accounts (case_id) values (7)"))


def test_refused_row_without_a_number_stays_unnamed(company: Company, sessions: sessionmaker[Session]) -> None:
    company.case()
    copy_users = text("insert into users (email, full_name, role) select email, 'Dana', role from users")
    with (
        sessions() as session,
        pytest.raises(dg.Failure, match="users_email_key") as failure,
        user_facing_failures(),
    ):
        session.execute(copy_users)
    assert "example.test" not in str(failure.value.description)
