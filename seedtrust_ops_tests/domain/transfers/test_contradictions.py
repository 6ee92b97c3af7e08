"""A bank that contradicts itself changes nothing: its transfer is in flight until a person settles it."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import resolve_all_of
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.evidence import (
    State,
    record_nothing_sent,
    record_refusals,
    record_sends,
)
from seedtrust_ops.domain.transfers.status_transitions import apply_bank_statuses
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import (
    Alert,
    TransferEvidence,
)
from seedtrust_ops_tests.domain.transfers.payment_stages import (
    complete,
    dishonor,
    pay_again,
    request_of,
    transaction_status,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import Company


def test_contradiction_blocks_until_it_is_settled(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    control = worker.bank.control
    for change in (control.settle, lambda: control.return_reference(str(transaction_id), "R01")):
        change()
        worker.heal()
    assert company.request_status(request_id) == "approved"
    control.dishonor_reference(str(transaction_id))
    worker.heal()
    worker.heal()

    assert company.open_alerts() == [("bank_contradicts_itself", f"transaction {transaction_id}")]
    assert transaction_status(company, transaction_id) == "returned"
    with company.sessions.begin() as session:
        resolve_all_of(session, ["bank_contradicts_itself"], f"transaction {transaction_id}")
    assert "may already have paid" in pay_again(worker, company, case, request_id)
    other = pay_again(worker, company, case, company.request(case, 5_000))
    assert "4000 cents available after what is in flight" in other


@pytest.mark.parametrize(
    "record",
    [
        lambda session, transaction_id: record_sends(session, [transaction_id]),
        lambda session, transaction_id: record_refusals(session, [transaction_id]),
        lambda session, transaction_id: record_nothing_sent(session, {transaction_id: 2}),
    ],
)
def test_contradiction_outlasts_a_send_in_progress(
    worker: Worker, company: Company, record: Callable[[Session, int], None]
) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(state=State.CONTRADICTED, bank_transfer_id=None))
        record(session, transaction_id)
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).all() == [State.CONTRADICTED]


def test_second_transfer_under_the_same_key_is_a_contradiction(worker: Worker, company: Company) -> None:
    _, transaction_id = complete(worker, company, company.case())
    second = BankTransfer(
        "tr_2",
        idempotency_key(transaction_id),
        BankStatus.COMPLETED,
        "ach",
        5_000,
        str(transaction_id),
        LONG_AGO,
        LONG_AGO,
    )
    for _ in range(2):
        with company.sessions.begin() as session:
            apply_bank_statuses(session, {transaction_id: second})
        worker.heal()
    assert company.open_alerts() == [("bank_contradicts_itself", f"transaction {transaction_id}")]
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).one() == State.CONTRADICTED


def test_contradiction_alert_opens_again_until_it_is_settled(worker: Worker, company: Company) -> None:
    _, transaction_id = dishonor(worker, company, company.case())
    with company.sessions.begin() as session:
        resolve_all_of(session, ["bank_contradicts_itself"], f"transaction {transaction_id}")
    for _ in range(2):
        worker.heal()
    with company.sessions() as session:
        (alert,) = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))
    assert (alert.rule, alert.occurrences) == ("bank_contradicts_itself", 1)
    assert f"seedtrust-ops transfers settle {transaction_id}" in alert.detail
