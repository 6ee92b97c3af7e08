"""`seedtrust-ops notifications`: previews, the list of kinds, and requeueing of failed email."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.cli.notifications import import_email_kinds
from seedtrust_ops.domain.notifications.kind_registry import KINDS, examples, find_example
from seedtrust_ops.domain.outbox.inspection import ATTACHMENT, LINK
from seedtrust_ops.domain.outbox.store import Attachment
from seedtrust_ops.ports.object_storage import DownloadLink
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness

import_email_kinds()


@pytest.mark.parametrize("kind", examples())
def test_preview_writes_html_and_prints_subject_and_text(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "email.html"
    result = CliRunner().invoke(app, ["notifications", "preview", kind, "--output", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Subject: ")
    assert path.read_text(encoding="utf-8").lstrip().startswith("<!DOCTYPE html>")


def test_preview_of_an_unknown_kind_lists_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["notifications", "preview", "birthday"])
    assert result.exit_code == 1
    assert "Choose one of: alert-opened, alert-risen" in result.output


def test_kinds_are_listed_with_their_variables() -> None:
    output = CliRunner().invoke(app, ["notifications", "kinds"]).output
    assert all(f"  {variable}: " in output for kind in KINDS.values() for variable in kind.variables)


def test_preview_is_written_to_a_folder_that_git_ignores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["notifications", "preview", "report-link"])
    assert result.exit_code == 0, result.output
    assert list(tmp_path.rglob("*.html")) == [tmp_path / ".seedtrust" / "previews" / "report-link.html"]
    assert ".seedtrust/" in (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()


@pytest.fixture
def outbox(sessions: sessionmaker[Session], mailbox: MailboxProcess, bank_environment: dict[str, str]) -> OutboxHarness:
    """The outbox of the database that the command reads."""
    return OutboxHarness(sessions, mailbox)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["notifications", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_emails_are_listed_newest_first_with_their_status(outbox: OutboxHarness) -> None:
    assert invoke("list") == "No emails.\n"
    user = outbox.add_user()
    first = outbox.enqueue(user)
    outbox.send_due()
    second = outbox.enqueue(user, kind="case-close")
    newest, oldest = invoke("list").splitlines()
    assert newest.split() == [str(second), "queued", *newest.split()[2:5], "case-close", user.email]
    assert oldest.split()[:2] == [str(first), "sent"]
    assert outbox.row(first).subject in oldest
    assert invoke("list", "--status", "sent").splitlines() == [oldest]
    assert invoke("list", "--limit", "1").splitlines() == [newest]


@pytest.mark.parametrize("name", examples())
def test_shown_email_is_the_one_that_was_sent(outbox: OutboxHarness, name: str) -> None:
    example = find_example(name)
    file = example.attachment_name
    attachment = None if file is None else Attachment(file, "application/pdf", b"%PDF")
    user = outbox.add_user(full_name="Maria Alvarez")
    email_id = outbox.enqueue(user, kind=example.kind, variables=dict(example.variables), attachment=attachment)
    shown = invoke("show", str(email_id))
    assert shown.startswith(f"To: {user.email}\nSubject: ")
    assert f"\nKind: {example.kind}\nStatus: queued\n" in shown
    # Links are signed on delivery and kept nowhere.
    assert "signature=" not in shown
    outbox.send_due(sign_link=lambda _key, _name: DownloadLink("https://reports.example/signed", None))
    (received,) = outbox.mailbox.control.emails(user.email)
    after = invoke("show", str(email_id))
    assert f"Subject: {received.subject}\n" in after
    assert "\nStatus: sent 20" in after
    # The file is deleted when it has been sent.
    sent_text = received.text.replace("https://reports.example/signed", LINK)
    if file is not None:
        sent_text = sent_text.replace(file, ATTACHMENT)
    assert sent_text.strip() in after


def test_shown_email_cuts_and_escapes_what_people_typed(outbox: OutboxHarness) -> None:
    hostile = "Eve\x1b[2J\x07 https://pay.example/now \u202e" + "A" * 5_000
    user = outbox.add_user(full_name=hostile, email="a\x1b[31m@example.test")
    variables = {
        name: hostile if isinstance(value, str) and name in KINDS["dr-approved"].typed else value  # type: ignore[union-attr]
        for name, value in find_example("dr-approved").variables.items()
    }
    email_id = outbox.enqueue(user, variables=variables, subject=hostile)
    with outbox.sessions.begin() as session:
        session.execute(text("update ops.notifications set last_error = :error"), {"error": hostile})
    for output in (invoke("show", str(email_id)), invoke("list")):
        assert all(line.isprintable() for line in output.splitlines()), output
        assert "A" * 301 not in output
    shown = invoke("show", str(email_id))
    assert "https[:]//pay[.]example/now" in shown


def test_show_says_why_an_email_has_no_text_or_does_not_exist(outbox: OutboxHarness) -> None:
    email_id = outbox.enqueue(variables={})
    assert "can't be rendered. Missing variables: " in invoke("show", str(email_id))
    number = 2**63 - 1
    unknown = CliRunner().invoke(app, ["notifications", "show", str(number)])
    sentence = f"There is no email {number}. `seedtrust-ops notifications list` shows which there are.\n"
    assert (unknown.exit_code, unknown.output) == (1, sentence)


def test_failed_email_is_requeued(bank_environment: dict[str, str], sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.notifications (dedupe_key, kind, recipient_email, subject, status, attempts)"
                " values ('a', 'alert', 'a@example.test', '', 'failed', 5),"
                " ('b', 'alert', 'b@example.test', '', 'sent', 1)"
            )
        )
    assert CliRunner().invoke(app, ["notifications", "retry"]).output == "Requeued 1 failed email.\n"
    with sessions() as session:
        assert session.execute(text("select status, attempts from ops.notifications order by 1")).all() == [
            ("queued", 0),
            ("sent", 1),
        ]
