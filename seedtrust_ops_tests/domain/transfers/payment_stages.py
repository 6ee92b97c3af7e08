"""Payments at each stage of their way to the bank, what people do to their rows, and what became of them.

For the tests of evidence, contradictions, resending and changed payments; `state_scenarios` drives the whole table.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import delete, select, update

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.batch_processor import AllTransfersFailed
from seedtrust_ops.tables import (
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    TransferEvidence,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company


def set_request(company: Company, transaction_id: int, **values: object) -> None:
    request = select(HuntingtonTransaction.disbursement_request_id).where(HuntingtonTransaction.id == transaction_id)
    with company.sessions.begin() as session:
        session.execute(
            update(DisbursementRequest).where(DisbursementRequest.id == request.scalar_subquery()).values(**values)
        )


def deny(company: Company, transaction_id: int) -> None:
    set_request(company, transaction_id, status="denied")


def set_transaction(company: Company, transaction_id: int, **values: object) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id).values(**values)
        )


def delete_transaction(company: Company, transaction_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id))


CHANGES: dict[str, Callable[[Company, int], None]] = {
    "failed": lambda company, one: set_transaction(company, one, status="failed", failure_reason="set by hand"),
    "pending": lambda company, one: set_transaction(company, one, status="pending"),
    "returned": lambda company, one: set_transaction(company, one, status="returned"),
    "deleted": lambda company, one: delete_transaction(company, one),
    "assigned to another request": lambda company, one: set_transaction(company, one, disbursement_request_id=None),
}


def request_of(company: Company, transaction_id: int) -> int:
    with company.sessions() as session:
        request_id = session.scalar(
            select(TransferEvidence.disbursement_request_id).where(TransferEvidence.transaction_id == transaction_id)
        )
    assert request_id is not None
    return request_id


def transaction_status(company: Company, transaction_id: int) -> str:
    with company.sessions() as session:
        return session.scalars(
            select(HuntingtonTransaction.status).where(HuntingtonTransaction.id == transaction_id)
        ).one()


def evidence_of(company: Company, transaction_id: int) -> TransferEvidence:
    with company.sessions() as session:
        return session.get_one(TransferEvidence, transaction_id)


def set_evidence(company: Company, **values: object) -> None:
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(**values))


def unknown_transfer(worker: Worker, transaction_id: int) -> tuple[str, str]:
    """The alert about the transfer of a transaction that explains it no more."""
    return "unknown_transfer", f"bank transfer {worker.bank_transfers([transaction_id])[transaction_id]['id']}"


def pay_again(worker: Worker, company: Company, case: BuiltCase, request_id: int, cents: int = 5_000) -> str:
    """Put the request into a new batch, process it, and return why it was not sent."""
    set_to_approved = update(DisbursementRequest).where(DisbursementRequest.id == request_id)
    with company.sessions.begin() as session:
        session.execute(set_to_approved.values(status="approved"))
    batch_id = company.batch(case=case)
    company.transaction(batch_id, request_id, cents, method="ach")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    assert worker.posts(transaction.id) == 0
    return transaction.failure_reason or ""


def queue_again(company: Company, batch_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).values(status="queued"))


def accept(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    return worker.submit_ach(case)


def complete(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.settle()
    worker.heal()
    return batch_id, transaction_id


def return_(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = complete(worker, company, case)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    return batch_id, transaction_id


def dishonor(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = complete(worker, company, case)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    worker.bank.control.dishonor_reference(str(transaction_id))
    worker.heal()
    return batch_id, transaction_id


def refuse(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 5_000), 5_000, method="ach")
    worker.bank.control.inject_fault("refuse", method="POST")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    return batch_id, transaction_id


def reject(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.reject_reference(str(transaction_id), "account is frozen")
    worker.heal()
    return batch_id, transaction_id


def send_without_answer(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    """Process a batch whose one request never reaches the bank's books and gets no answer."""
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 5_000), 5_000, method="ach")
    key = idempotency_key(transaction_id)
    worker.bank.control.inject_fault("reset_before_commit", method="POST", idempotency_key=key)
    worker.process(batch_id)
    assert transaction_status(company, transaction_id) == "processing"
    return batch_id, transaction_id
