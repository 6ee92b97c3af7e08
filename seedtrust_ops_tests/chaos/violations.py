"""What the invariant checks report: a kind, a message, and the column of the results table in which the kind counts.

The checks themselves are in `invariants`, `final_invariants`, `transfers_explained`, `somebody_knows` and
`email_invariants`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from seedtrust_ops_tests.chaos.results_table import Row


class ViolationKind(StrEnum):
    """Which promise was broken."""

    DOUBLE_PAYMENT = "double payment"
    """Money moved twice instead of once."""
    LOST_PAYMENT = "lost payment"
    """A payment that was made but is not in SeedTrust's books, or that was due and will never be made."""
    SENT_WITHOUT_PERMISSION = "sent without permission"
    """Sent while halted, held, denied, not recorded, or from a batch that no worker had claimed."""
    STATUS_MISMATCH = "status mismatch"
    """SeedTrust has a status that the bank never reported."""
    LEDGER_MISMATCH = "ledger mismatch"
    """A balance differs from the sum of its ledger entries, or the ledger from what the bank moved."""
    UNEXPLAINED = "unexplained"
    """An open item that no bank status, preflight result or alert explains."""
    TRANSFER_WITHOUT_ROW = "transfer without a row"
    """A transfer at the bank that neither a transaction nor an alerted row of unknown transfers explains."""
    NOBODY_KNOWS = "nobody knows"
    """Something that a person must act on, of which no open alert and no email to an active user tells."""


@dataclass(frozen=True)
class Violation:
    """One broken promise and the message that says what is wrong."""

    kind: ViolationKind
    message: str

    def __str__(self) -> str:
        """The text that a test failure shows."""
        return f"{self.kind}: {self.message}"


def build_row(scenario: str, cases: int, violations: Iterable[Violation]) -> Row:
    """Return a scenario's table row; every kind that has no column of its own counts as unexplained."""
    kinds = Counter(one.kind for one in violations)
    double, lost, without_row, unnotified = (
        kinds.pop(kind, 0)
        for kind in (
            ViolationKind.DOUBLE_PAYMENT,
            ViolationKind.LOST_PAYMENT,
            ViolationKind.TRANSFER_WITHOUT_ROW,
            ViolationKind.NOBODY_KNOWS,
        )
    )
    return Row(scenario, cases, double, lost, kinds.total(), without_row, unnotified)
