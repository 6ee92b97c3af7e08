"""A mail failure is reported in the run that meets it, and never fails or retries that run."""

from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.notifications.notification_kinds import ALERT_OPENED
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.orchestration.user_facing_failures import RETRIES
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.support.environment import SetVariables, process_environment


@dg.op(retry_policy=RETRIES)
def queues_emails(context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource) -> str:
    send_queued_emails(context, database, mail)
    return "done"


@dg.job(resource_defs={"database": DatabaseResource(), "mail": MailResource()})
def email_job() -> None:
    queues_emails()


@pytest.fixture(autouse=True)
def production(bank_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with the test's database and the session's mail server."""


def queue_an_email(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        variables: dict[str, Any] = dict(ALERT_OPENED.example)
        email = Email("alert:1:opened:ops", "alert-opened", None, "ops@example.test", variables=variables)
        enqueue_emails(session, [email])


def run() -> tuple[str, dict[str, Any]]:
    """Run the job in one attempt; return the op's return value and its metadata."""
    result = email_job.execute_in_process(raise_on_error=False)
    assert result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    (handled,) = [event for event in result.all_events if event.is_successful_output]
    metadata = handled.step_output_data.metadata
    return result.output_for_node("queues_emails"), {name: value.value for name, value in metadata.items()}


def test_emails_are_sent_and_counted(sessions: sessionmaker[Session], mailbox: MailboxProcess) -> None:
    queue_an_email(sessions)
    assert run() == ("done", {"Emails sent": 1})
    assert [email.subject for email in mailbox.control.emails("ops@example.test")] == [
        "CRITICAL: batch stuck, batch 118"
    ]
    assert run() == ("done", {"Emails sent": 0})


def test_mail_server_is_not_needed_if_no_email_is_due(set_variables: SetVariables) -> None:
    set_variables(SMTP_HOST=None)
    assert run() == ("done", {"Emails sent": 0})


def test_missing_variable_is_reported_and_the_job_succeeds(
    sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    queue_an_email(sessions)
    set_variables(SMTP_HOST=None)
    returned, metadata = run()
    assert returned == "done"
    assert metadata["Emails still due"] == 1
    assert metadata["Email error"].startswith("SMTP_HOST is not set. It is ")


def test_mail_server_outage_is_reported_and_a_later_run_sends(
    sessions: sessionmaker[Session], mailbox: MailboxProcess, closed_port: int
) -> None:
    queue_an_email(sessions)
    with process_environment(SMTP_PORT=str(closed_port)):
        returned, metadata = run()
    assert returned == "done"
    assert metadata["Emails to retry"] == 1
    assert f"The mail server 127.0.0.1:{closed_port} can't be used" in metadata["Email error"]
    with sessions.begin() as session:
        session.execute(text("update ops.notifications set next_attempt_at = now()"))
    assert run() == ("done", {"Emails sent": 1})
    assert mailbox.control.totals()["emails"] == 1


def test_lost_database_is_reported_and_the_job_succeeds(closed_port: int) -> None:
    with process_environment(SEEDTRUST_DATABASE_URL=f"postgresql://ops@127.0.0.1:{closed_port}/gone"):
        returned, metadata = run()
    assert returned == "done"
    assert "Database gone at 127.0.0.1" in metadata["Email error"]
