"""Trouble with the mail is told in the run that met it and never fails or retries that run."""

from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.domain.notifications.previews import EXAMPLES
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, MailResource
from seedtrust_ops.orchestration.email_delivery import deliver_queued_letters
from seedtrust_ops.orchestration.user_facing_failures import RETRIES
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess


@dg.op(retry_policy=RETRIES)
def works_and_writes(context: dg.OpExecutionContext, database: DatabaseResource, mail: MailResource) -> str:
    deliver_queued_letters(context, database, mail)
    return "done"


@dg.job(resource_defs={"database": DatabaseResource(), "mail": MailResource()})
def letter_job() -> None:
    works_and_writes()


@pytest.fixture(autouse=True)
def production(bank_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with the test's database and the session's mail server."""


def write_a_letter(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        variables: dict[str, Any] = dict(EXAMPLES["alert-opened"].variables)
        letter = Email("alert:1:opened:ops", "alert-opened", None, "ops@example.test", variables=variables)
        enqueue_emails(session, [letter])


def run() -> tuple[str, dict[str, Any]]:
    """What the op returned, in one try, and its metadata."""
    result = letter_job.execute_in_process(raise_on_error=False)
    assert result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    (handled,) = [event for event in result.all_events if event.is_successful_output]
    metadata = handled.step_output_data.metadata
    return result.output_for_node("works_and_writes"), {name: one.value for name, one in metadata.items()}


def test_letters_are_sent_and_counted(sessions: sessionmaker[Session], mailbox: MailboxProcess) -> None:
    write_a_letter(sessions)
    assert run() == ("done", {"letters sent": 1})
    assert [one.subject for one in mailbox.control.letters("ops@example.test")] == ["CRITICAL: batch stuck, batch 118"]
    assert run() == ("done", {"letters sent": 0})


def test_mail_server_is_not_needed_where_no_letter_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMTP_HOST")
    get_settings.cache_clear()
    assert run() == ("done", {"letters sent": 0})


def test_missing_variable_is_told_and_the_job_succeeds(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_a_letter(sessions)
    monkeypatch.delenv("SMTP_HOST")
    get_settings.cache_clear()
    returned, metadata = run()
    assert returned == "done"
    assert metadata["letters still due"] == 1
    assert metadata["letters trouble"].startswith("SMTP_HOST is not set. It is ")


def test_mail_server_that_is_down_is_told_and_a_later_run_delivers(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch, mailbox: MailboxProcess, closed_port: int
) -> None:
    write_a_letter(sessions)
    with monkeypatch.context() as meanwhile:
        meanwhile.setenv("SMTP_PORT", str(closed_port))
        get_settings.cache_clear()
        returned, metadata = run()
    assert returned == "done"
    assert metadata["letters postponed"] == 1
    assert f"The mail server 127.0.0.1:{closed_port} can't be used" in metadata["letters trouble"]
    get_settings.cache_clear()
    with sessions.begin() as session:
        session.execute(text("update ops.notifications set next_attempt_at = now()"))
    assert run() == ("done", {"letters sent": 1})
    assert mailbox.control.totals()["letters"] == 1


def test_database_that_is_gone_by_then_is_told_and_the_job_succeeds(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    with monkeypatch.context() as meanwhile:
        meanwhile.setenv("SEEDTRUST_DATABASE_URL", f"postgresql://ops@127.0.0.1:{closed_port}/gone")
        get_settings.cache_clear()
        application_engine.cache_clear()
        returned, metadata = run()
    get_settings.cache_clear()
    application_engine.cache_clear()
    assert returned == "done"
    assert "The database gone at 127.0.0.1" in metadata["letters trouble"]
