"""`seedtrust-ops notifications`: previews, the list of kinds, and requeueing of failed email."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.cli.notifications import import_email_kinds
from seedtrust_ops.domain.notifications.kind_registry import KINDS, examples

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
