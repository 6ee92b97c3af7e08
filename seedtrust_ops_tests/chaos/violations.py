"""What the checker can find, in words: a kind, a sentence, and the columns of the table that the kinds count in.

What makes a violation is not said here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from seedtrust_ops_tests.chaos.results_table import Row


class Kind(StrEnum):
    """What is wrong."""

    DOUBLE_PAYMENT = "double payment"
    """Money moved twice where it should have moved once."""
    LOST_PAYMENT = "lost payment"
    """A payment that was made and is not in SeedTrust's books, or was to be made and never will be."""
    SENT_WITHOUT_LEAVE = "sent without leave"
    """Sent while halted, held, denied, not on record, or from a batch that nobody claimed."""
    NOT_THE_BANKS_WORD = "not the bank's word"
    """SeedTrust believes what the bank never said."""
    BOOKS_DIFFER = "books differ"
    """A balance is not its ledger's sum, or the ledger is not what the bank moved."""
    UNEXPLAINED = "unexplained"
    """Something rests where nothing says why: no word of the bank, no check, no alert."""


@dataclass(frozen=True)
class Violation:
    """One broken promise, and the sentence that says which."""

    kind: Kind
    sentence: str

    def __str__(self) -> str:
        """As a test's failure shows it."""
        return f"{self.kind}: {self.sentence}"


def as_row(fault: str, cases: int, violations: Iterable[Violation]) -> Row:
    """Return the table's row for a fault: whatever is neither a double nor a lost payment counts as unexplained."""
    kinds = [one.kind for one in violations]
    double, lost = kinds.count(Kind.DOUBLE_PAYMENT), kinds.count(Kind.LOST_PAYMENT)
    return Row(fault, cases, double=double, lost=lost, unexplained=len(kinds) - double - lost)
