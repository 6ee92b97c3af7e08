"""Health of the ledger: every balance equals the sum of its entries, and every transfer's entries what it moved.

Each check is one statement over the whole ledger, so it sees one snapshot; balances, entries and what is known of
transfers change in the same transaction. What a transfer moved is known by the bank's answers and by what people have
settled, not by the entries that follow from it, and where there is neither, by its status.
See docs/decisions/alerts.md.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS, remaining_finding
from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonTransaction,
    LedgerCorrection,
    LedgerEntry,
    TransferEvidence,
)

LEDGER_MISMATCH = "ledger_mismatch"


def ledger_mismatch(session: Session) -> list[Finding]:
    """Find accounts whose balance differs from their ledger entries, and transfers whose entries differ from theirs."""
    return _found(session, _mismatched_accounts(), "accounts", _account_finding) + _found(
        session, _misposted_transfers(), "transactions", _transfer_finding
    )


def _mismatched_accounts() -> Select[*tuple[Any, ...]]:
    posted = (
        select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_cents).label("cents"))
        .group_by(LedgerEntry.account_id)
        .subquery()
    )
    cents = func.coalesce(posted.c.cents, 0)
    return (
        select(Account.id, Account.balance_cents, cents.label("ledger_cents"))
        .outerjoin(posted, posted.c.account_id == Account.id)
        .where(Account.balance_cents != cents)
        .order_by(Account.id)
    )


def _misposted_transfers() -> Select[*tuple[Any, ...]]:
    """Return the transfers whose entries are not what they moved, with the sentence that says what is wrong first."""
    posted, moved = _posted_by_transfer(), _moved_by_transfer()
    posted_cents = func.coalesce(posted.c.cents, 0)
    # A correction makes up for whatever was posted before, so only the sum counts then.
    is_uncorrected = posted.c.corrections == 0
    problem = case(
        (posted.c.has_other_kind, "has an entry that is neither a disbursement nor a reversal"),
        (posted.c.has_wrong_sign, "has a disbursement that adds money or a reversal that takes some"),
        (
            or_(posted.c.first_account != moved.c.account_id, posted.c.last_account != moved.c.account_id),
            "has an entry in the account of another case",
        ),
        (
            and_(posted_cents != moved.c.cents, or_(~moved.c.is_contradicted, posted_cents != -moved.c.amount_cents)),
            "has other entries than what it moved",
        ),
        (
            and_(is_uncorrected, posted.c.disbursed_cents != -moved.c.amount_cents),
            "has a disbursement of another amount",
        ),
        (and_(is_uncorrected, ~moved.c.may_have_entries), "has entries, although it never moved money"),
        (and_(moved.c.status == "completed", posted_cents == 0), "is completed but has no entry"),
    )
    return (
        select(
            moved.c.id,
            problem.label("problem"),
            moved.c.amount_cents,
            moved.c.cents.label("moved_cents"),
            posted_cents.label("posted_cents"),
        )
        .outerjoin(posted, posted.c.transaction_id == moved.c.id)
        .where(problem.is_not(None))
        .order_by(moved.c.id)
    )


def _moved_by_transfer() -> Subquery:
    """Return for each transaction, deleted ones included, in which account it should have posted how many cents."""
    transaction, evidence = HuntingtonTransaction, TransferEvidence
    has_evidence = evidence.transaction_id.is_not(None)
    amount_cents = func.coalesce(evidence.bank_amount_cents, evidence.amount_cents, transaction.amount_cents)
    has_moved = case((has_evidence, evidence.state == "moved"), else_=transaction.status == "completed")
    ever_moved = ("completed", "returned")
    return (
        select(
            func.coalesce(transaction.id, evidence.transaction_id).label("id"),
            transaction.status,
            amount_cents.label("amount_cents"),
            case((has_moved, -amount_cents), else_=literal(0, BigInteger())).label("cents"),
            func.coalesce(evidence.state == "contradicted", false()).label("is_contradicted"),
            # If it has no evidence, nobody has asked the bank about it yet.
            case(
                (
                    has_evidence,
                    or_(
                        evidence.state == "contradicted",
                        func.coalesce(evidence.bank_status, "").in_(ever_moved),
                        func.coalesce(evidence.settled_as, "").in_(ever_moved),
                    ),
                ),
                else_=true(),
            ).label("may_have_entries"),
            case((has_evidence, evidence.account_id), else_=Account.id).label("account_id"),
        )
        .select_from(transaction)
        .join(evidence, evidence.transaction_id == transaction.id, full=True)
        .outerjoin(
            DisbursementRequest, and_(~has_evidence, DisbursementRequest.id == transaction.disbursement_request_id)
        )
        .outerjoin(Account, Account.case_id == DisbursementRequest.case_id)
        .subquery("moved")
    )


def _posted_by_transfer() -> Subquery:
    """Return the sum of each transaction's entries, those that correct it included, and what is odd about them."""
    entry, correction = LedgerEntry, LedgerCorrection
    columns = (entry.account_id, entry.amount_cents, entry.kind)
    entries = union_all(
        select(entry.huntington_transaction_id.label("transaction_id"), *columns, false().label("is_correction")).where(
            entry.huntington_transaction_id.is_not(None)
        ),
        # What a person explained may be the transfer of a transaction that had no request to book it for.
        select(func.coalesce(correction.transaction_id, HuntingtonTransaction.id), *columns, true())
        .join(entry, entry.id == correction.ledger_entry_id)
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.bank_transfer_id == correction.bank_transfer_id),
    ).subquery("entries")
    is_disbursement: ColumnElement[bool] = entries.c.kind == "disbursement"
    return (
        select(
            entries.c.transaction_id,
            func.sum(entries.c.amount_cents).label("cents"),
            func.sum(entries.c.amount_cents).filter(is_disbursement).label("disbursed_cents"),
            func.count().filter(entries.c.is_correction).label("corrections"),
            func.bool_or(entries.c.kind.not_in(("disbursement", "reversal"))).label("has_other_kind"),
            func.bool_or(is_disbursement != (entries.c.amount_cents < 0)).label("has_wrong_sign"),
            func.min(entries.c.account_id).label("first_account"),
            func.max(entries.c.account_id).label("last_account"),
        )
        .group_by(entries.c.transaction_id)
        .subquery("posted")
    )


def _found(
    session: Session, violations: Select[*tuple[Any, ...]], subjects: str, finding: Callable[[Row[Any]], Finding]
) -> list[Finding]:
    rows = session.execute(
        violations.add_columns(func.count().over().label("number")).limit(MAX_SEPARATE_FINDINGS)
    ).all()
    found = [finding(row) for row in rows]
    if rows and rows[0].number > MAX_SEPARATE_FINDINGS:
        found.append(remaining_finding(found[0], subjects, rows[0].number - MAX_SEPARATE_FINDINGS))
    return found


def _account_finding(row: Row[Any]) -> Finding:
    difference = int(row.balance_cents - row.ledger_cents)
    return Finding(
        LEDGER_MISMATCH,
        f"account {row.id}",
        Severity.CRITICAL,
        f"The balance of account {row.id} is {format_dollars(abs(difference))} {'more' if difference > 0 else 'less'} "
        "than the sum of its ledger entries: one was changed without the other. Find out who changed it before "
        "anything is paid from this account, then correct whichever is wrong.",
    )


def _transfer_finding(row: Row[Any]) -> Finding:
    moved = "moved no money" if row.moved_cents == 0 else f"moved {format_dollars(-row.moved_cents)}"
    return Finding(
        LEDGER_MISMATCH,
        f"transaction {row.id}",
        Severity.CRITICAL,
        f"Transaction {row.id} ({format_dollars(row.amount_cents)}) {row.problem}. By what the bank has said it "
        f"{moved}, and its ledger entries, corrections included, add up to {format_dollars(row.posted_cents)}. Find "
        f"out who changed them, then run `seedtrust-ops transfers settle {row.id}` with the bank's status: it posts "
        "the difference.",
    )
