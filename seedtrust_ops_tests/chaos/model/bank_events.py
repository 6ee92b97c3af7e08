"""What the bank does in the model: it settles, returns, rejects and contradicts itself, and it forgets.

Unknown transfers appear at it, it reports odd rows, its funding account runs dry, and it fails for ever for one
transfer. What it answers to single requests is in `state_machine`.
"""

from collections.abc import Callable, Sequence
from itertools import count

import httpx

from seedtrust_ops.sandbox.bank.admin_actions import Status
from seedtrust_ops.sandbox.bank.control_client import ODD_ROWS
from seedtrust_ops_tests.chaos.bank_pool import OPENING_CENTS
from seedtrust_ops_tests.chaos.model.simulation import Simulation

BANK_EVENTS = (
    "the bank settles transfers",
    "the bank returns a transfer",
    "the bank dishonors a return",
    "the bank rejects a transfer",
    "the bank forgets a key",
    "the bank recovers",
    "the bank reports an odd row",
    "the bank fails for ever for a transfer",
    "an unknown transfer appears",
    "a transfer of a number that no transaction has appears",
    "the funding account runs dry",
    "the funding account is funded",
)
UNKNOWN_TRANSFER_STATUSES: tuple[Status, ...] = ("completed", "accepted", "rejected", "returned")
NO_TRANSACTION = 10**9
"""Far above any transaction's number."""


class BankEvents:
    """The bank's events in one simulation; each returns whether it had an effect."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._numbers = count(1)

    def events(self, index: int, transaction_id: int) -> dict[str, Callable[[], object]]:
        """Return what the bank can do, by the names in `BANK_EVENTS`, with these arguments."""
        bank, reference = self._simulation.bank, str(transaction_id)
        return {
            "the bank settles transfers": bank.settle,
            "the bank returns a transfer": lambda: self._do(lambda: bank.return_reference(reference, "R03")),
            "the bank dishonors a return": lambda: self._take(lambda: bank.dishonor_reference(reference)),
            "the bank rejects a transfer": lambda: self._do(
                lambda: bank.reject_reference(reference, "account is frozen")
            ),
            "the bank forgets a key": lambda: self._do(
                lambda: bank.forget_key(f"seedtrust-transaction-{transaction_id}")
            ),
            "the bank recovers": bank.clear_faults,
            "the bank reports an odd row": lambda: self._misreport(reference, index),
            "the bank fails for ever for a transfer": lambda: bank.inject_fault(
                "error_before_commit", times=None, method="POST", reference=reference, status=500
            ),
            "an unknown transfer appears": lambda: self._add_unknown_transfer(f"invoice {next(self._numbers)}", index),
            "a transfer of a number that no transaction has appears": lambda: self._add_unknown_transfer(
                str(NO_TRANSACTION + next(self._numbers)), index
            ),
            "the funding account runs dry": lambda: self._set_funds(index % 30_000),
            "the funding account is funded": lambda: self._set_funds(OPENING_CENTS),
        }

    def _do(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except httpx.HTTPStatusError:
            return False
        return True

    def _take(self, action: Callable[[], object]) -> bool:
        """Do what takes money from the funding account beside our transfers."""
        is_done = self._do(action)
        self._simulation.change_funds()
        return is_done

    def _set_funds(self, cents: int) -> bool:
        self._simulation.change_funds(cents)
        return True

    def _misreport(self, reference: str, index: int) -> bool:
        names: Sequence[str] = list(ODD_ROWS)
        self._simulation.bank.misreport(reference, ODD_ROWS[names[index % len(names)]])
        return True

    def _add_unknown_transfer(self, reference: str, index: int) -> bool:
        status = UNKNOWN_TRANSFER_STATUSES[index % len(UNKNOWN_TRANSFER_STATUSES)]
        method = "wire" if status == "completed" else "ach"
        return self._take(
            lambda: self._simulation.bank.add_unknown_transfer(
                reference, 1 + index % 5_000_000, method=method, status=status
            )
        )
