"""`seedtrust-ops rules explain`: one line per rule, and a one-line error for an unknown request."""

import pytest
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops_tests.support.case_factory import CaseFactory


@pytest.mark.usefixtures("bank_environment")
def test_explanation_has_one_line_per_rule_and_the_outcome(sessions: sessionmaker[Session]) -> None:
    factory = CaseFactory(sessions)
    rule = factory.rule(name="Legal", category="legal fees")
    request = factory.request(factory.case(), 10_000)
    result = CliRunner().invoke(app, ["rules", "explain", str(request)])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1:] == [
        f"Rule {rule} 'Legal' (position 0) does not match: it applies only to category 'legal fees'.",
        "No rule approves it.",
    ]


@pytest.mark.usefixtures("bank_environment")
def test_unknown_request_is_a_one_line_error() -> None:
    result = CliRunner().invoke(app, ["rules", "explain", "404"])
    assert result.exit_code == 1
    assert result.stderr == "There is no disbursement request 404. Check the number on the case page.\n"
