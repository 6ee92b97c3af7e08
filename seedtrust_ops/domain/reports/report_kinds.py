"""The four kinds of reports: what each is called, what its rows and columns are, and what it adds up.

Rows come as the formats want them: money in cents, moments by the office's wall clock, no account number ever.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Date, cast, func, select
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.reports.parameters import (
    Period,
    UnusableRequest,
    read_case_id,
    read_choice,
    read_period,
)
from seedtrust_ops.domain.reports.report_content import Chart, Column, Report, Shape, Total
from seedtrust_ops.formatting import single_line
from seedtrust_ops.tables import (
    Account,
    Case,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerEntry,
    User,
)

TEXT, MONEY, MOMENT, NUMBER = Shape.TEXT, Shape.MONEY, Shape.MOMENT, Shape.NUMBER
LONGEST_ABOUT = 100
DISBURSEMENT_STATUSES = ("pending", "approved", "denied", "cancelled", "paid")
TITLES = {
    "case_ledger": "Case ledger",
    "disbursements": "Disbursements",
    "account_balances": "Account balances",
    "huntington_transfers": "Huntington transfers",
}


def prepare_report(session: Session, kind: str, params: object, zone: str) -> Report:
    """Return the report that was asked for, by one database snapshot; its rows are not read yet.

    Args:
        session: rows must be read by the same one.
        kind: as the request says it.
        params: as the request has them.
        zone: the office's time zone.

    Raises:
        UnusableRequest: saying what is wrong with kind or params.
    """
    make = _KINDS.get(kind)
    if make is None:
        raise no_such_report(kind)
    if not isinstance(params, dict):
        raise UnusableRequest("The parameters of the report can't be read. Ask for the report again.")
    return make(session, params, zone)


def no_such_report(kind: str) -> UnusableRequest:
    """Return what is said to whoever asks for a kind that is none."""
    return UnusableRequest(f"There is no report called {kind[:60]!r}: choose one of {', '.join(TITLES)}.")


def title_of(kind: str) -> str:
    """Return what a kind is called among people; an unknown one by its own name."""
    return TITLES.get(kind, f"Report {kind[:60]}")


def find_ledger(session: Session, params: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return the case's number among people, its account and the balance in cents, for the case that `params` name.

    Raises:
        UnusableRequest: when they name none, or one that does not exist or has no account.
    """
    case_id = read_case_id(params)
    found = session.execute(
        select(Case.case_number, Account.id, Account.balance_cents)
        .outerjoin(Account, Account.case_id == Case.id)
        .where(Case.id == case_id)
    ).one_or_none()
    if found is None:
        raise UnusableRequest(f"There is no case with the number {case_id}. Check the number and ask again.")
    case_number, account_id, balance_cents = found
    if account_id is None:
        raise UnusableRequest(f"Case {case_number} has no escrow account yet, so it has no ledger.")
    return case_number, account_id, balance_cents


def _case_ledger(session: Session, params: Mapping[str, Any], zone: str) -> Report:
    case_number, account_id, balance_cents = find_ledger(session, params)
    of_account = LedgerEntry.account_id == account_id
    sums = {
        row.kind: int(row.cents)
        for row in session.execute(
            select(LedgerEntry.kind, func.sum(LedgerEntry.amount_cents).label("cents"))
            .where(of_account)
            .group_by(LedgerEntry.kind)
        )
    }
    balance = func.sum(LedgerEntry.amount_cents).over(order_by=(LedgerEntry.posted_at, LedgerEntry.id))
    return Report(
        title=TITLES["case_ledger"],
        about=single_line(f"Case {case_number}", LONGEST_ABOUT),
        as_of=_now(session, zone),
        columns=(
            Column("Posted", MOMENT, 19),
            Column("Kind", TEXT, 14),
            Column("Memo", TEXT, 44),
            Column("Transaction", TEXT, 13),
            Column("Amount", MONEY, 16),
            Column("Balance", MONEY, 16),
        ),
        totals=(
            *(Total(f"{kind.capitalize()}s", MONEY, cents) for kind, cents in sorted(sums.items())),
            Total("Balance", MONEY, balance_cents),
        ),
        rows=select(
            _local(LedgerEntry.posted_at, zone),
            LedgerEntry.kind,
            LedgerEntry.memo,
            LedgerEntry.huntington_transaction_id,
            LedgerEntry.amount_cents,
            cast(balance, BigInteger),
        )
        .where(of_account)
        .order_by(LedgerEntry.posted_at, LedgerEntry.id),
        chart=Chart("Balance over time", moment=0, cents=5),
    )


def _disbursements(session: Session, params: Mapping[str, Any], zone: str) -> Report:
    period, status = read_period(params), read_choice(params, "status", DISBURSEMENT_STATUSES)
    chosen = _within(DisbursementRequest.requested_at, period, zone)
    if status is not None:
        chosen.append(DisbursementRequest.status == status)
    count, cents = session.execute(
        select(func.count(), func.coalesce(func.sum(DisbursementRequest.amount_cents), 0)).where(*chosen)
    ).one()
    return Report(
        title=TITLES["disbursements"],
        about=f"Requested {period}, {status or 'every status'}",
        as_of=_now(session, zone),
        columns=(
            Column("Request", TEXT, 10),
            Column("Case", TEXT, 14),
            Column("Payee", TEXT, 26),
            Column("Category", TEXT, 20),
            Column("Description", TEXT, 32),
            Column("Amount", MONEY, 15),
            Column("Status", TEXT, 11),
            Column("Requested", MOMENT, 19),
            Column("Approved", MOMENT, 19),
            Column("Approved by", TEXT, 14),
            Column("Paid", MOMENT, 19),
        ),
        totals=(Total("Requests", NUMBER, count), Total("Amount", MONEY, int(cents))),
        rows=select(
            DisbursementRequest.id,
            Case.case_number,
            User.full_name,
            DisbursementRequest.category,
            DisbursementRequest.description,
            DisbursementRequest.amount_cents,
            DisbursementRequest.status,
            _local(DisbursementRequest.requested_at, zone),
            _local(DisbursementRequest.approved_at, zone),
            DisbursementRequest.approved_by,
            _local(DisbursementRequest.paid_at, zone),
        )
        .join(Case, Case.id == DisbursementRequest.case_id)
        .join(User, User.id == DisbursementRequest.payee_id)
        .where(*chosen)
        .order_by(DisbursementRequest.requested_at, DisbursementRequest.id),
    )


def _account_balances(session: Session, _params: Mapping[str, Any], zone: str) -> Report:
    shortfall = func.greatest(Account.minimum_balance_cents - Account.balance_cents, 0)
    manager = aliased(User)
    accounts, balances, below, short = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(Account.balance_cents), 0),
            func.count().filter(shortfall > 0),
            func.coalesce(func.sum(shortfall), 0),
        )
        .join(Case, Case.id == Account.case_id)
        .where(Case.status != "closed")
    ).one()
    return Report(
        title=TITLES["account_balances"],
        about="Every case that is not closed",
        as_of=_now(session, zone),
        columns=(
            Column("Case", TEXT, 16),
            Column("Status", TEXT, 10),
            Column("Case manager", TEXT, 28),
            Column("Balance", MONEY, 17),
            Column("Minimum", MONEY, 17),
            Column("Shortfall", MONEY, 17),
        ),
        totals=(
            Total("Accounts", NUMBER, accounts),
            Total("Balance of all", MONEY, int(balances)),
            Total("Below their minimum", NUMBER, below),
            Total("Shortfall of all", MONEY, int(short)),
        ),
        rows=select(
            Case.case_number,
            Case.status,
            manager.full_name,
            Account.balance_cents,
            Account.minimum_balance_cents,
            shortfall,
        )
        .join(Account, Account.case_id == Case.id)
        .outerjoin(manager, manager.id == Case.case_manager_id)
        .where(Case.status != "closed")
        .order_by(Case.id),
    )


def _huntington_transfers(session: Session, params: Mapping[str, Any], zone: str) -> Report:
    period = read_period(params)
    queued_at = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    chosen = _within(queued_at, period, zone)
    of_batch = HuntingtonBatch.id == HuntingtonTransaction.batch_id
    sums = session.execute(
        select(HuntingtonTransaction.status, func.count(), func.sum(HuntingtonTransaction.amount_cents))
        .join(HuntingtonBatch, of_batch)
        .where(*chosen)
        .group_by(HuntingtonTransaction.status)
        .order_by(HuntingtonTransaction.status)
    ).all()
    return Report(
        title=TITLES["huntington_transfers"],
        about=f"Queued {period}",
        as_of=_now(session, zone),
        columns=(
            Column("Transaction", TEXT, 12),
            Column("Batch", TEXT, 8),
            Column("Queued", MOMENT, 19),
            Column("Case", TEXT, 14),
            Column("Payee", TEXT, 26),
            Column("Account", TEXT, 10),
            Column("Method", TEXT, 8),
            Column("Amount", MONEY, 15),
            Column("Status", TEXT, 11),
            Column("Reason", TEXT, 30),
            Column("Bank's number", TEXT, 18),
            Column("Completed", MOMENT, 19),
        ),
        totals=(
            Total("Transfers", NUMBER, sum(count for _, count, _ in sums)),
            *(Total(status.capitalize(), MONEY, int(cents)) for status, _, cents in sums),
        ),
        rows=select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            _local(queued_at, zone),
            Case.case_number,
            HuntingtonTransaction.payee_name,
            func.concat("…", func.right(HuntingtonTransaction.account_number_last4, 4)),
            HuntingtonTransaction.method,
            HuntingtonTransaction.amount_cents,
            HuntingtonTransaction.status,
            HuntingtonTransaction.failure_reason,
            HuntingtonTransaction.bank_transfer_id,
            _local(HuntingtonTransaction.completed_at, zone),
        )
        .join(HuntingtonBatch, of_batch)
        .outerjoin(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
        .outerjoin(Case, Case.id == DisbursementRequest.case_id)
        .where(*chosen)
        .order_by(HuntingtonTransaction.id),
    )


_KINDS: dict[str, Callable[[Session, Mapping[str, Any], str], Report]] = {
    "case_ledger": _case_ledger,
    "disbursements": _disbursements,
    "account_balances": _account_balances,
    "huntington_transfers": _huntington_transfers,
}


def _now(session: Session, zone: str) -> Any:
    return session.scalars(select(_local(func.now(), zone))).one()


def _local(moment: ColumnElement[Any] | Any, zone: str) -> ColumnElement[Any]:
    return func.timezone(zone, moment)


def _within(moment: Any, period: Period, zone: str) -> list[ColumnElement[bool]]:
    day = cast(_local(moment, zone), Date)
    return [*([day >= period.first] if period.first else []), *([day <= period.last] if period.last else [])]
