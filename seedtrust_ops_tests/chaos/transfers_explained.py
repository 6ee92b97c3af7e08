"""The judgment that every transfer at the bank is explained by a row: ours with evidence, or an unknown one, alerted.

It compares the bank's whole ledger, unknown transfers included, with SeedTrust's tables, and holds once auto-heal
has read everything the bank reports.
"""

from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.sandbox.bank.control_client import SandboxBank, Transfer
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

OURS = """
    select bank_transfer_id from huntington_transactions where bank_transfer_id is not null
    union
    select e.bank_transfer_id from ops.transfer_evidence e
      left join huntington_transactions t on t.id = e.transaction_id
     where e.bank_transfer_id is not null and (t.id is not null or e.settled_as is not null)
"""
"""Our transactions' transfers. If one was deleted, its evidence explains nothing until a person has settled it."""
UNKNOWN = "select bank_transfer_id, explained_at is not null as is_explained from ops.unknown_transfers"
ALERTS = "select subject from ops.alerts where rule = 'unknown_transfer' and resolved_at is null"
GROUP = "unknown transfers"
"""The subject of the one alert about many."""


def check_transfers_explained(sessions: Sessions, bank: SandboxBank) -> Iterator[Violation]:
    """Yield a violation for each transfer at the bank that no row explains, or that nobody was alerted to."""
    with sessions() as session:
        yield from _check(session, bank.ledger()["transfers"])


def _check(session: Session, transfers: list[Transfer]) -> Iterator[Violation]:
    ours = set(session.scalars(text(OURS)))
    unknown = {row.bank_transfer_id: row.is_explained for row in session.execute(text(UNKNOWN))}
    alerts = set(session.scalars(text(ALERTS)))
    for one in transfers:
        if one["id"] in ours:
            continue
        what = f"The bank has transfer {one['id']} ({one['status']}, reference '{one['reference']}')"
        if one["id"] not in unknown:
            yield Violation(ViolationKind.TRANSFER_WITHOUT_ROW, f"{what}, which no row explains.")
        elif not unknown[one["id"]] and not alerts & {f"bank transfer {one['id']}", GROUP}:
            yield Violation(ViolationKind.TRANSFER_WITHOUT_ROW, f"{what}, which is unknown, and no alert says so.")
