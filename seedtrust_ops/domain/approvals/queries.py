"""Loads what the rules decide on: rules, pending requests, and the limits that remain.

The decision itself is in `rules`; here only requests that no rule could match within the limits are filtered out: a
hundred thousand requests that wait for tomorrow's limit must not be read at each evaluation.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, time, timedelta, tzinfo
from typing import Any

from sqlalchemy import BigInteger, Numeric, Select, and_, cast, func, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.rules import RemainingLimits, Request, Rule
from seedtrust_ops.domain.approvals.writer import Payee, has_returned_payment, is_approvable
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.domain.sql_ranges import capped_cents
from seedtrust_ops.tables import Account, ApprovalRule, Case, DisbursementRequest
from seedtrust_ops.tables.user_text import cut_text

APPROVED_BY_RULE = "auto:rule:"
"""Prefix of `approved_by` if a rule approved; the rule's id follows."""
_ROWS_PER_PAGE = 5_000


def database_time(session: Session) -> datetime:
    """Return the database's current time; the transaction's start may be much earlier if it waited for a lock."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def load_rules(session: Session, *, locked: bool = False, enabled_only: bool = True) -> list[Rule]:
    """Return the approval rules; `locked` keeps others from changing them until the transaction ends."""
    query: Select[*tuple[Any, ...]] = select(
        ApprovalRule.id,
        ApprovalRule.name,
        ApprovalRule.position,
        ApprovalRule.is_enabled,
        cut_text(ApprovalRule.category),
        ApprovalRule.payee_id,
        ApprovalRule.case_id,
        ApprovalRule.max_amount_cents,
        ApprovalRule.keep_minimum_balance,
        ApprovalRule.daily_limit_cents,
    ).order_by(ApprovalRule.id)
    if enabled_only:
        query = query.where(ApprovalRule.is_enabled)
    if locked:
        query = query.with_for_update()
    return [Rule(*row) for row in session.execute(query)]


def pending_requests(session: Session, rules: Iterable[Rule], limits: RemainingLimits) -> Iterator[Request]:
    """Yield the approvable requests that a rule could match within `limits`, oldest first.

    Limits only shrink while requests are approved, so a request that exceeds them now is approved by no rule.
    """
    above_minimum = array_table(
        "above_minimum", [("case_id", BigInteger()), ("cents", BigInteger())], limits.above_minimum.items()
    )
    # One condition per rule: a join with the rules table, where each condition may be 'any', is many times slower.
    could_match = [
        and_(
            DisbursementRequest.amount_cents <= _max_amount(rule, limits),
            *(DisbursementRequest.category == one for one in (rule.category,) if one is not None),
            *(DisbursementRequest.payee_id == one for one in (rule.payee_id,) if one is not None),
            *(DisbursementRequest.case_id == one for one in (rule.case_id,) if one is not None),
            *(DisbursementRequest.amount_cents <= above_minimum.c.cents for _ in range(rule.keep_minimum_balance)),
        )
        for rule in rules
        if rule.is_enabled and _max_amount(rule, limits) > 0
    ]
    if could_match:
        query = _request_query().outerjoin(above_minimum, above_minimum.c.case_id == DisbursementRequest.case_id)
        yield from _requests(session, query.where(*is_approvable(), or_(*could_match)))


def _max_amount(rule: Rule, limits: RemainingLimits) -> int:
    if rule.daily_limit_cents is None:
        return rule.max_amount_cents
    return min(rule.max_amount_cents, rule.daily_limit_cents - limits.used_today.get(rule.id, 0))


def find_request(session: Session, request_id: int) -> Request | None:
    """Return one request in any status, or None."""
    return next(_requests(session, _request_query().where(DisbursementRequest.id == request_id)), None)


def remaining_limits(
    session: Session, moment: datetime, zone: tzinfo, *, excluding: int | None = None
) -> RemainingLimits:
    """Return how much may still be approved at a moment.

    Args:
        session: any session.
        moment: determines the calendar day in `zone` for the daily limits.
        zone: the office's time zone.
        excluding: the id of a request to treat as if it were still pending.
    """
    counted = DisbursementRequest.id.is_distinct_from(excluding)
    unpaid = (
        select(DisbursementRequest.case_id, func.sum(DisbursementRequest.amount_cents).label("cents"))
        .where(DisbursementRequest.status == "approved", counted)
        .group_by(DisbursementRequest.case_id)
        .subquery("unpaid")
    )
    above_minimum = session.execute(
        select(
            Account.case_id,
            capped_cents(
                cast(Account.balance_cents, Numeric) - Account.minimum_balance_cents - func.coalesce(unpaid.c.cents, 0)
            ),
        )
        .outerjoin(unpaid, unpaid.c.case_id == Account.case_id)
        .where(
            Account.case_id.in_(
                select(DisbursementRequest.case_id).where(or_(DisbursementRequest.status == "pending", ~counted))
            )
        )
    )
    begins, ends = calendar_day(moment, zone)
    used_today = session.execute(
        select(ApprovalRule.id, func.sum(DisbursementRequest.amount_cents))
        .join(
            DisbursementRequest,
            DisbursementRequest.approved_by == func.concat(APPROVED_BY_RULE, ApprovalRule.id),
        )
        .where(DisbursementRequest.approved_at >= begins, DisbursementRequest.approved_at < ends, counted)
        .group_by(ApprovalRule.id)
    )
    return RemainingLimits.of(
        {case_id: int(cents) for case_id, cents in above_minimum},
        {rule_id: int(cents) for rule_id, cents in used_today},
    )


def calendar_day(moment: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the start of the calendar day of `moment` in `zone`, and the start of the next day."""
    day = moment.astimezone(zone).date()
    return (
        datetime.combine(day, time.min, zone),
        datetime.combine(day + timedelta(days=1), time.min, zone),
    )


def _request_query() -> Select[*tuple[Any, ...]]:
    query: Select[*tuple[Any, ...]] = (
        select(
            DisbursementRequest.id,
            DisbursementRequest.case_id,
            DisbursementRequest.payee_id,
            cut_text(DisbursementRequest.category),
            DisbursementRequest.amount_cents,
            DisbursementRequest.status,
            DisbursementRequest.on_hold,
            Case.status,
            Payee.is_active,
            DisbursementRequest.requested_at,
            has_returned_payment(),
        )
        .join(Case, Case.id == DisbursementRequest.case_id)
        .join(Payee, Payee.id == DisbursementRequest.payee_id)
        .order_by(DisbursementRequest.requested_at, DisbursementRequest.id)
    )
    return query


def _requests(session: Session, query: Select[*tuple[Any, ...]]) -> Iterator[Request]:
    # All rows are read; without this setting PostgreSQL plans a cursor for its first 10% of rows.
    session.execute(select(func.set_config("cursor_tuple_fraction", "1", True)))
    for row in session.execute(query, execution_options={"yield_per": _ROWS_PER_PAGE}):
        yield Request(*row)
