"""An office in the test's own database."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops_tests.support.office_factory import Office


@pytest.fixture
def office(sessions: sessionmaker[Session]) -> Office:
    return Office(sessions)
