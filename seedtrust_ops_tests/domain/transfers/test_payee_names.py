"""Payee names: pasted spaces and invisible marks do not stop a payment, and what does is named."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from seedtrust_ops.domain.transfers import account_numbers
from seedtrust_ops.domain.transfers.payee_names import find_payee_name_problem, normalize_payee_name
from seedtrust_ops.ports.bank import TransferOrder, TransferResponse
from seedtrust_ops.resources.huntington_client import HuntingtonBank
from seedtrust_ops.tables import TransferEvidence
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company

RULE = "the payee's name must be 1 to 35 printable characters, and "


@pytest.mark.parametrize(
    "typed",
    [
        "Dana Whitfield",
        "  Dana Whitfield ",
        "Dana\u00a0Whitfield\u00a0",
        "Dana \t\r\n Whitfield",
        "Dana\u3000\u2003Whitfield\u202f",
        "\ufeffDana Whit\u00adfield",
        "\u200bDana\u200b \u2060Whitfield\u200d\u200c",
        "\u200eDana Whitfield\u200f",
        "Dana" + " " * 1_980 + "Whitfield",
    ],
    ids=ascii,
)
def test_spaces_and_invisible_marks_are_normalized(typed: str) -> None:
    assert normalize_payee_name(typed) == "Dana Whitfield"
    assert find_payee_name_problem(typed) is None


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("", "it is empty"),
        (" \u00a0\u200b\ufeff", "it is empty"),
        ("x" * 36, "it has 36"),
        (f" {'x' * 36}\u200b", "it has 36"),
        ("Dana \u202eWhitfield", "character 6 is U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("Dana\u2066", "character 5 is U+2066 LEFT-TO-RIGHT ISOLATE"),
        ("Dana\x07", "character 5 is U+0007 a character without a name"),
        ("\ue000Dana", "character 1 is U+E000 a character without a name"),
        ("Dana" + " " * 3_000 + "Whitfield", "with its spaces it has 2000 or more"),
    ],
    ids=ascii,
)
def test_problem_names_the_character_or_the_length(typed: str, problem: str) -> None:
    assert find_payee_name_problem(typed) == RULE + problem


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=35))
def test_name_that_was_accepted_as_stored_is_accepted_normalized(typed: str) -> None:
    assert normalize_payee_name(normalize_payee_name(typed)) == normalize_payee_name(typed)
    if typed.strip() and typed.isprintable():
        assert find_payee_name_problem(typed) is None


@pytest.fixture
def sent_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The payee name of each request to the bank, in order."""
    names: list[str] = []
    create_transfer = HuntingtonBank.create_transfer

    async def record(bank: HuntingtonBank, order: TransferOrder, may_send: Callable[[], bool]) -> TransferResponse:
        names.append(order.payee_name)
        return await create_transfer(bank, order, may_send)

    monkeypatch.setattr(HuntingtonBank, "create_transfer", record)
    return names


def pay(company: Company, payee_name: str) -> tuple[int, int]:
    """Create a batch of one payment; return the ids of the batch and its transaction."""
    case = company.case()
    batch_id = company.batch(case=case)
    return batch_id, company.transaction(batch_id, company.request(case, 700), 700, payee_name=payee_name)


def test_bank_gets_the_normalized_name_and_the_row_keeps_its_own(
    worker: Worker, company: Company, sent_names: list[str]
) -> None:
    batch_id, _ = pay(company, "\u200b Dana\u00a0 Whitfield")
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]
    assert sent_names == ["Dana Whitfield"]
    assert company.transactions(batch_id)[0].payee_name == "\u200b Dana\u00a0 Whitfield"


@pytest.mark.parametrize("is_normalized", [True, False])
def test_transfer_is_resent_with_the_name_that_was_first_sent(
    worker: Worker,
    company: Company,
    sent_names: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_normalized: bool,
) -> None:
    batch_id, transaction_id = pay(company, " Dana  Whitfield")
    worker.bank.control.inject_fault("reset_before_commit", method="POST", reference=str(transaction_id))
    with monkeypatch.context() as before:
        if not is_normalized:
            before.setattr(account_numbers, "normalize_payee_name", str)
        worker.process(batch_id)
    if not is_normalized:
        # A worker of the release before knows no such column.
        with company.sessions.begin() as session:
            session.execute(update(TransferEvidence).values(payee_name_normalized=False))
    worker.heal()
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]
    assert sent_names == ["Dana Whitfield" if is_normalized else " Dana  Whitfield"] * 2
