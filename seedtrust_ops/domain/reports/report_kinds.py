"""The four kinds of reports: title, columns, query and totals of each.

Rows come ready for the writers: money in cents, timestamps in local time, texts of a limited length, and never an
account number.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Date, Select, String, cast, func, select, type_coerce
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.reports.parameters import (
    InvalidReportRequest,
    Period,
    read_case_id,
    read_choice,
    read_parameters,
    read_period,
)
from seedtrust_ops.domain.reports.report_content import Chart, Column, ColumnType, Report, Total
from seedtrust_ops.domain.sql_ranges import capped_cents, cents_between, local_time
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
from seedtrust_ops.tables.user_text import UserText

TEXT, MONEY, TIMESTAMP, NUMBER = ColumnType.TEXT, ColumnType.MONEY, ColumnType.TIMESTAMP, ColumnType.NUMBER
MAX_ABOUT_CHARACTERS = 100
MAX_CELL_CHARACTERS = 5_000
"""Users write texts of any length. What is longer is cut in the database and ends in an ellipsis, in every format."""
DISBURSEMENT_STATUSES = ("pending", "approved", "denied", "cancelled", "paid")
TITLES = {
    "case_ledger": "Case ledger",
    "disbursements": "Disbursements",
    "account_balances": "Account balances",
    "huntington_transfers": "Huntington transfers",
}


def prepare_report(session: Session, kind: str, params: object, zone: str) -> Report:
    """Return the requested report; its totals are computed and its rows are not read yet.

    Args:
        session: in one database snapshot; the rows must be read through it too.
        kind: the request's kind.
        params: the request's parameters, not validated yet.
        zone: the office's time zone, for dates and local times.

    Raises:
        InvalidReportRequest: the kind or a parameter is unknown, or a value is invalid.
    """
    known = read_parameters(kind, params)
    return _KINDS[kind](session, known, zone)


def report_title(kind: str) -> str:
    """Return the title of a kind for people; an unknown kind is shown by its own name."""
    return TITLES.get(kind, f"Report {kind[:60]}")


def find_case_account(session: Session, params: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return the case number, account id and balance in cents of the case in `params`.

    Raises:
        InvalidReportRequest: there is no case id, the case does not exist, or it has no account.
    """
    case_id = read_case_id(params)
    found = session.execute(
        select(Case.case_number, Account.id, Account.balance_cents)
        .outerjoin(Account, Account.case_id == Case.id)
        .where(Case.id == case_id)
    ).one_or_none()
    if found is None:
        raise InvalidReportRequest(f"Case {case_id} does not exist. Check the case id and try again.")
    case_number, account_id, balance_cents = found
    if account_id is None:
        raise InvalidReportRequest(f"Case {case_number} has no escrow account yet, so there is no ledger to report.")
    return case_number, account_id, balance_cents


def _case_ledger(session: Session, params: Mapping[str, Any], zone: str) -> Report:
    case_number, account_id, balance_cents = find_case_account(session, params)
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
        about=single_line(f"Case {case_number}", MAX_ABOUT_CHARACTERS),
        as_of=_now(session, zone),
        columns=(
            Column("Posted", TIMESTAMP, 22),
            Column("Kind", TEXT, 14),
            Column("Memo", TEXT, 44),
            Column("Transaction", TEXT, 14),
            Column("Amount", MONEY, 16),
            Column("Balance", MONEY, 16),
        ),
        totals=(
            *(Total(f"{kind.capitalize()}s", MONEY, cents) for kind, cents in sorted(sums.items())),
            Total("Balance", MONEY, balance_cents),
        ),
        rows=_rows(
            _local(LedgerEntry.posted_at, zone),
            LedgerEntry.kind,
            LedgerEntry.memo,
            LedgerEntry.huntington_transaction_id,
            LedgerEntry.amount_cents,
            capped_cents(balance),
        )
        .where(of_account)
        .order_by(LedgerEntry.posted_at, LedgerEntry.id),
        chart=Chart("Balance over time", timestamp=0, cents=5),
    )


def _disbursements(session: Session, params: Mapping[str, Any], zone: str) -> Report:
    period, status = read_period(params, zone), read_choice(params, "status", DISBURSEMENT_STATUSES)
    conditions = _in_period(DisbursementRequest.requested_at, period, zone)
    if status is not None:
        conditions.append(DisbursementRequest.status == status)
    count, cents = session.execute(
        select(func.count(), func.coalesce(func.sum(DisbursementRequest.amount_cents), 0)).where(*conditions)
    ).one()
    return Report(
        title=TITLES["disbursements"],
        about=f"Requested {period}, {status or 'every status'}",
        as_of=_now(session, zone),
        columns=(
            Column("Request", TEXT, 11),
            Column("Case", TEXT, 16),
            Column("Payee", TEXT, 30),
            Column("Category", TEXT, 24),
            Column("Description", TEXT, 32),
            Column("Amount", MONEY, 15),
            Column("Status", TEXT, 12),
            Column("Requested", TIMESTAMP, 22),
            Column("Approved", TIMESTAMP, 22),
            Column("Approved by", TEXT, 15),
            Column("Paid", TIMESTAMP, 22),
        ),
        totals=(Total("Requests", NUMBER, count), Total("Amount", MONEY, int(cents))),
        rows=_rows(
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
        .where(*conditions)
        .order_by(DisbursementRequest.requested_at, DisbursementRequest.id),
    )


def _account_balances(session: Session, _params: Mapping[str, Any], zone: str) -> Report:
    shortfall = func.greatest(cents_between(Account.balance_cents, Account.minimum_balance_cents), 0)
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
            Column("Status", TEXT, 12),
            Column("Case manager", TEXT, 28),
            Column("Balance", MONEY, 17),
            Column("Minimum", MONEY, 17),
            Column("Shortfall", MONEY, 17),
        ),
        totals=(
            Total("Accounts", NUMBER, accounts),
            Total("Total balance", MONEY, int(balances)),
            Total("Below minimum", NUMBER, below),
            Total("Total shortfall", MONEY, int(short)),
        ),
        rows=_rows(
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
    period = read_period(params, zone)
    queued_at = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    conditions = _in_period(queued_at, period, zone)
    of_batch = HuntingtonBatch.id == HuntingtonTransaction.batch_id
    sums = session.execute(
        select(HuntingtonTransaction.status, func.count(), func.sum(HuntingtonTransaction.amount_cents))
        .join(HuntingtonBatch, of_batch)
        .where(*conditions)
        .group_by(HuntingtonTransaction.status)
        .order_by(HuntingtonTransaction.status)
    ).all()
    return Report(
        title=TITLES["huntington_transfers"],
        about=f"Queued {period}",
        as_of=_now(session, zone),
        columns=(
            Column("Transaction", TEXT, 14),
            Column("Batch", TEXT, 9),
            Column("Queued", TIMESTAMP, 22),
            Column("Case", TEXT, 16),
            Column("Payee", TEXT, 30),
            Column("Account", TEXT, 11),
            Column("Method", TEXT, 11),
            Column("Amount", MONEY, 15),
            Column("Status", TEXT, 12),
            Column("Reason", TEXT, 30),
            Column("Bank transfer", TEXT, 30),
            Column("Completed", TIMESTAMP, 22),
        ),
        totals=(
            Total("Transfers", NUMBER, sum(count for _, count, _ in sums)),
            *(Total(status.capitalize(), MONEY, int(cents)) for status, _, cents in sums),
        ),
        rows=_rows(
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
        .where(*conditions)
        .order_by(HuntingtonTransaction.id),
    )


_KINDS: dict[str, Callable[[Session, Mapping[str, Any], str], Report]] = {
    "case_ledger": _case_ledger,
    "disbursements": _disbursements,
    "account_balances": _account_balances,
    "huntington_transfers": _huntington_transfers,
}


def _rows(*columns: ColumnElement[Any] | Any) -> Select[*tuple[Any, ...]]:
    """Return a query for the rows of a report, with its texts cut to what a cell holds."""
    texts = (String, UserText)
    cut = UserText(MAX_CELL_CHARACTERS)
    rows: Select[*tuple[Any, ...]] = select(
        *(type_coerce(one, cut) if isinstance(one.type, texts) else one for one in columns)
    )
    return rows


def _now(session: Session, zone: str) -> Any:
    return session.scalars(select(_local(func.now(), zone))).one()


def _local(timestamp: ColumnElement[Any] | Any, zone: str) -> ColumnElement[Any]:
    return local_time(timestamp, zone)


def _in_period(timestamp: Any, period: Period, zone: str) -> list[ColumnElement[bool]]:
    day = cast(local_time(timestamp, zone), Date)
    return [*([day >= period.first] if period.first else []), *([day <= period.last] if period.last else [])]
