"""A batch of eight transfers, each of which ends in its own way, and the bank that makes them do so.

The rows are made once, in a database that every case has a copy of: the ids are the same in all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.domain.transfers.idempotency_keys import KEY_PREFIX
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.support.factories import Company

COMPLETED, ACCEPTED, RETURNED, REFUSED, WRONG_ROUTING, LATE, RESET, REUSED = range(1, 9)
"""The transactions' ids, by what becomes of them."""
SENT = (COMPLETED, ACCEPTED, RETURNED, REFUSED, LATE, RESET, REUSED)
"""Those of which the bank hears: all but the one that the check stops."""
METHODS = {ACCEPTED: "ach", RETURNED: "ach"}
WRONG_ROUTING_NUMBER = "044000025"


def amount_cents(transaction_id: int) -> int:
    """What a transaction is for; no two are for the same."""
    return 10_000 + transaction_id


@contextmanager
def template_with_batch(ground: Ground) -> Iterator[str]:
    """The name of a database with batch 1 of the eight, queued, to be copied for each case."""
    with ground.database() as url:
        engine = create_engine(url)
        company = Company(sessionmaker(engine, expire_on_commit=False), ground.cipher)
        case = company.case(balance_cents=1_000_000)
        batch_id = company.batch(case=case)
        assert batch_id == 1
        for number in range(COMPLETED, REUSED + 1):
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


def prepare_bank(banks: FreshBanks, **first: Any) -> None:
    """Put a new bank in place that will do with the eight what is to become of them; a `first` fault goes before."""
    banks.renew()
    order = banks.control.order_fault
    if first:
        order(**first)
    order("refuse", method="POST", reference=str(REFUSED), code="insufficient_funds")
    # Longer than anybody waits for it.
    order("answer_late_after_commit", method="POST", reference=str(LATE), seconds=10)
    order("reset_before_commit", method="POST", reference=str(RESET))
    banks.control.plant_transfer(
        str(REUSED), amount_cents(REUSED), idempotency_key=f"{KEY_PREFIX}{REUSED}", method="ach", status="completed"
    )
