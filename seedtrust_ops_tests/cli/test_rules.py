"""`seedtrust-ops rules explain`: a line a rule, and a sentence where there is no such request."""

import pytest
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops_tests.support.office_factory import Office


@pytest.mark.usefixtures("bank_environment")
def test_explain_prints_a_line_a_rule_and_the_outcome(sessions: sessionmaker[Session]) -> None:
    office = Office(sessions)
    rule = office.rule(name="Legal", category="legal fees")
    request = office.request(office.case(), 10_000)
    answer = CliRunner().invoke(app, ["rules", "explain", str(request)])
    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert lines[1:] == [
        f"Rule {rule} 'Legal' (position 0) does not match: it is for category 'legal fees' alone.",
        "No rule approves it.",
    ]


@pytest.mark.usefixtures("bank_environment")
def test_unknown_request_is_a_sentence_and_exit_code_1() -> None:
    answer = CliRunner().invoke(app, ["rules", "explain", "404"])
    assert answer.exit_code == 1
    assert answer.stderr == "There is no disbursement request 404. Check the number on the case's screen.\n"
