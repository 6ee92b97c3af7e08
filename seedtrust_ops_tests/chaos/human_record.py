"""What people did by hand in a case, as far as the judgments must know it: whom they contradicted, what they changed.

Payments are judged as strictly as ever. Only what a person has decided explicitly, against the bank or about a row, is
that person's, and is not counted as the product's error.
"""

from dataclasses import dataclass, field


@dataclass
class HumanRecord:
    """Filled by the acts themselves (`model/people.py`); empty if nobody did anything."""

    statuses: dict[int, str] = field(default_factory=dict)
    """The status that a person has written into a transaction, last."""
    moved: set[int] = field(default_factory=set)
    """Transactions that a person has put into another batch."""
    changed: set[int] = field(default_factory=set)
    """Transactions whose amount, request, batch or status a person has changed, or that a person has deleted."""
    batches: set[int] = field(default_factory=set)
    """Batches from which or into which a person has moved, or in which a person has deleted or set, a transaction."""
    requests: set[int] = field(default_factory=set)
    """The requests of changed and of settled transactions."""
    settled: dict[int, str] = field(default_factory=dict)
    """How a person settled a transaction, last."""
    settled_against_bank: set[int] = field(default_factory=set)
    """Transactions that a person has settled as something else than the bank's own books say."""

    insisted: set[int] = field(default_factory=set)
    """Transactions that a person has settled as something else than what the bank said when it was asked."""

    def is_written_by_hand(self, transaction_id: int, status: str) -> bool:
        """Whether the transaction still has the status that a person wrote into it."""
        return self.statuses.get(transaction_id) == status
