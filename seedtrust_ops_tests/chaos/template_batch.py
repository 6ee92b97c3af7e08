"""A batch of eight transfers that each end in a different way, and the bank that makes them do so.

The rows are created once, in a database that every case copies, so the ids are the same in all cases.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.domain.transfers.attempts import KEY_PREFIX
from seedtrust_ops_tests.chaos.bank_pool import BankPool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.witness import install_witness
from seedtrust_ops_tests.support.factories import Company

COMPLETED, ACCEPTED, RETURNED, REFUSED, WRONG_ROUTING, LATE, RESET, KEY_CONFLICT = range(1, 9)
"""The transaction ids, named by how each transfer ends."""
SENT = (COMPLETED, ACCEPTED, RETURNED, REFUSED, LATE, RESET, KEY_CONFLICT)
"""The transactions that are sent to the bank: all but the one that preflight rejects."""
METHODS = {ACCEPTED: "ach", RETURNED: "ach"}
WRONG_ROUTING_NUMBER = "044000025"


def amount_cents(transaction_id: int) -> int:
    """Return a transaction's amount; no two have the same."""
    return 10_000 + transaction_id


@contextmanager
def template_with_batch(environment: ChaosEnvironment) -> Iterator[str]:
    """The name of a database in which batch 1, with the eight transactions, is queued; each case copies it."""
    with environment.database() as url:
        engine = create_engine(url)
        install_witness(engine)
        company = Company(sessionmaker(engine, expire_on_commit=False), environment.cipher)
        case = company.case(balance_cents=1_000_000)
        batch_id = company.batch(case=case)
        assert batch_id == 1
        for number in range(COMPLETED, KEY_CONFLICT + 1):
            transaction_id = company.transaction(
                batch_id,
                company.request(case, amount_cents(number)),
                amount_cents(number),
                method=METHODS.get(number, "wire"),
                **({"routing_number": WRONG_ROUTING_NUMBER} if number == WRONG_ROUTING else {}),
            )
            assert transaction_id == number
        engine.dispose()
        yield str(url.database)


def prepare_bank(banks: BankPool, **first_fault: Any) -> None:
    """Switch to a new bank that treats the eight transfers as planned; `first_fault` is ordered before the others."""
    banks.replace_bank()
    inject_fault = banks.control.inject_fault
    if first_fault:
        inject_fault(**first_fault)
    inject_fault("refuse", method="POST", reference=str(REFUSED), code="invalid_account")
    # Longer than any worker waits for the response.
    inject_fault("late_response_after_commit", method="POST", reference=str(LATE), seconds=10)
    inject_fault("reset_before_commit", method="POST", reference=str(RESET))
    banks.control.insert_transfer(
        str(KEY_CONFLICT),
        amount_cents(KEY_CONFLICT),
        idempotency_key=f"{KEY_PREFIX}{KEY_CONFLICT}",
        method="ach",
        status="completed",
    )
