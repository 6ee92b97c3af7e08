"""The email outbox on the test's own database, with the session's mail server."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness


@pytest.fixture
def outbox(sessions: sessionmaker[Session], mailbox: MailboxProcess) -> OutboxHarness:
    return OutboxHarness(sessions, mailbox)
