"""The fixture that creates users, cases, requests and rules in the test's own database."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops_tests.support.case_factory import CaseFactory


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)
