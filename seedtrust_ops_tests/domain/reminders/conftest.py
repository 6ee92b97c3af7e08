"""An office in the test's own database."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops_tests.office import Office


@pytest.fixture
def office(sessions: sessionmaker[Session]) -> Office:
    return Office(sessions)
