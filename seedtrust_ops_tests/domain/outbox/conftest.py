"""An outbox on the test's own database and the session's mail server."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.domain.outbox.email_outbox import Post


@pytest.fixture
def post(sessions: sessionmaker[Session], mailbox: MailboxProcess) -> Post:
    return Post(sessions, mailbox)
