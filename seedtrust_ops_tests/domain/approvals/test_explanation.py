"""The explanation says of every rule why it matches or not, and what it says is what a run then does."""

from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.approvals.explanation import UnknownDisbursementRequest, explain
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops_tests.support.office_factory import Office

ZONE = ZoneInfo("America/New_York")


def explained(office: Office, request_id: int) -> list[str]:
    with office.sessions() as session:
        return explain(session, request_id, ZONE)


def test_each_rule_gets_a_line_in_the_order_in_which_rules_are_asked(office: Office) -> None:
    case = office.case(balance_cents=100_000, minimum_balance_cents=95_000)
    request = office.request(case, 10_000)
    last = office.rule(name="Anything", position=9)
    first = office.rule(name="Legal", position=1, category="legal fees", max_amount_cents=500)
    second = office.rule(name="Careful", position=2, keep_minimum_balance=True)
    third = office.rule(name="Little a day", position=3, daily_limit_cents=7_500)
    fourth = office.rule(name="Off", position=4, is_enabled=False)
    fifth = office.rule(name="Travel", position=5, category="travel")
    lines = explained(office, request)
    assert lines[0].startswith(f"Request {request}: $100.00 for 'travel', case {case.case_id}")
    assert lines[1:] == [
        f"Rule {first} 'Legal' (position 1) does not match: it is for category 'legal fees' alone; "
        "it is for at most $5.00.",
        f"Rule {second} 'Careful' (position 2) does not match: the account must stay at or above its minimum, and "
        "counting what is approved and not yet paid it has $50.00 above it.",
        f"Rule {third} 'Little a day' (position 3) does not match: of its $75.00 a day $75.00 is left today.",
        f"Rule {fourth} 'Off' (position 4) does not match: it is switched off.",
        f"Rule {fifth} 'Travel' (position 5) matches.",
        f"Rule {last} 'Anything' (position 9) matches too, but rule {fifth} comes first.",
        f"Rule {fifth} approves it at the next run.",
    ]


def test_older_requests_take_their_room_first(office: Office) -> None:
    office.rule(daily_limit_cents=10_000)
    now = datetime.now(UTC)
    young = office.request(office.case(), 6_000, requested_at=now - timedelta(days=1))
    office.request(office.case(), 6_000, requested_at=now - timedelta(days=2))
    assert "of its $100.00 a day $40.00 is left today" in explained(office, young)[1]
    assert explained(office, young)[-1] == "No rule approves it."


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"on_hold": True}, "it is on hold"), ({"status": "denied"}, "it is denied, not pending")],
)
def test_barred_request_is_said_to_be_barred(office: Office, columns: dict[str, object], reason: str) -> None:
    office.rule()
    lines = explained(office, office.request(office.case(), **columns))
    assert lines[1].endswith("matches.")
    assert lines[-1] == f"No rule approves it: {reason}."


def test_approved_request_is_explained_as_if_nobody_had_approved_it(office: Office) -> None:
    office.rule(daily_limit_cents=10_000, keep_minimum_balance=True)
    request = office.request(office.case(balance_cents=10_000), 10_000)
    run_in_transaction(office.sessions, partial(approve_by_rules, zone=ZONE))
    lines = explained(office, request)
    assert lines[1].endswith("matches.")
    assert lines[-1] == "No rule approves it: it is approved, not pending."


def test_where_there_are_no_rules_it_says_so(office: Office) -> None:
    assert explained(office, office.request(office.case()))[-1] == "No rule approves it: there are no rules."


def test_unknown_request_is_a_sentence(office: Office) -> None:
    with pytest.raises(UnknownDisbursementRequest, match="There is no disbursement request 404"):
        explained(office, 404)


def test_what_is_explained_is_what_a_run_then_does(office: Office) -> None:
    office.rule(daily_limit_cents=25_000, keep_minimum_balance=True, position=1)
    office.rule(category="travel", max_amount_cents=9_000, position=2)
    now = datetime.now(UTC)
    requests = [
        office.request(office.case(balance_cents=balance), amount, requested_at=now - timedelta(hours=9 - number))
        for number, (balance, amount) in enumerate(
            [(20_000, 12_000), (5_000, 8_000), (50_000, 14_000), (50_000, 13_000), (1_000, 9_001), (0, 9_000)]
        )
    ]
    foretold = {
        request: line.removeprefix("Rule ").split()[0]
        for request in requests
        if (line := explained(office, request)[-1]).endswith("approves it at the next run.")
    }
    run_in_transaction(office.sessions, partial(approve_by_rules, zone=ZONE))
    assert {request: f"auto:rule:{rule}" for request, rule in foretold.items()} == office.approvals()
    assert len(foretold) == 4
