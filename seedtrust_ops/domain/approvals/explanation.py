"""Explains, rule by rule and in words, why a request is approved or not, as a run would decide it now.

It asks the decision itself: nothing is judged here a second time.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from itertools import takewhile

from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.queries import clock, request_of, room_at, rules_of, waiting_requests
from seedtrust_ops.domain.approvals.rules import (
    Ineligibility,
    RemainingLimits,
    Request,
    Rule,
    RuleMismatch,
    bars,
    decide,
    hurdles,
    in_order,
)
from seedtrust_ops.errors import SeedTrustError


class UnknownDisbursementRequest(SeedTrustError):
    """No disbursement request has this number."""


def explain(session: Session, request_id: int, zone: tzinfo) -> list[str]:
    """Return why the request is approved or not: a line for the request, one for each rule, and the outcome.

    Older requests take their room first, as in a run. A request that is approved already is judged as if nobody
    had approved it, and is not counted.

    Args:
        session: any; nothing is changed.
        request_id: the request's number.
        zone: the office's, whose calendar day the daily limits count.

    Raises:
        UnknownDisbursementRequest: when there is none.
    """
    request = request_of(session, request_id)
    if request is None:
        raise UnknownDisbursementRequest(
            f"There is no disbursement request {request_id}. Check the number on the case's screen."
        )
    rules = rules_of(session, enabled_only=False)
    room = room_at(session, clock(session), zone, without=request_id)
    older = takewhile(lambda one: _age(one) < _age(request), waiting_requests(session, rules))
    return in_words(request, rules, room.less(decide(older, rules, room)))


def in_words(request: Request, rules: Iterable[Rule], room: RemainingLimits) -> list[str]:
    """Return the lines of `explain` for a request that finds this room when its turn comes."""
    lines = [
        f"Request {request.id}: {_dollars(request.amount_cents)} for '{request.category}', case {request.case_id}, "
        f"payee {request.payee_id}, {request.status}."
    ]
    barred = [_BARS[bar](request) for bar in bars(request)]
    approving: Rule | None = None
    ordered = in_order(rules)
    for rule in ordered:
        reasons = [_HURDLES[hurdle](rule, request, room) for hurdle in hurdles(rule, request, room)]
        if reasons:
            verdict = f"does not match: {'; '.join(reasons)}"
        elif approving is not None:
            verdict = f"matches too, but rule {approving.id} comes first"
        else:
            verdict = "matches"
            approving = rule
        lines.append(f"Rule {rule.id} '{rule.name}' (position {rule.position}) {verdict}.")
    if barred:
        lines.append(f"No rule approves it: {'; '.join(barred)}.")
    elif approving is not None:
        lines.append(f"Rule {approving.id} approves it at the next run.")
    else:
        lines.append("No rule approves it." if ordered else "No rule approves it: there are no rules.")
    return lines


def _age(request: Request) -> tuple[object, ...]:
    return request.requested_at, request.id


def _above_minimum(rule: Rule, request: Request, room: RemainingLimits) -> str:
    left = room.above_minimum[request.case_id]
    stands = f"is already {_dollars(-left)} short of it" if left < 0 else f"has {_dollars(left)} above it"
    return f"the account must stay at or above its minimum, and counting what is approved and not yet paid it {stands}"


def _left_today(rule: Rule, request: Request, room: RemainingLimits) -> str:
    limit, used = rule.daily_limit_cents or 0, room.used_today.get(rule.id, 0)
    return f"of its {_dollars(limit)} a day {_dollars(max(limit - used, 0))} is left today"


_HURDLES: Mapping[RuleMismatch, Callable[[Rule, Request, RemainingLimits], str]] = {
    RuleMismatch.DISABLED: lambda rule, request, room: "it is switched off",
    RuleMismatch.CATEGORY: lambda rule, request, room: f"it is for category '{rule.category}' alone",
    RuleMismatch.PAYEE: lambda rule, request, room: f"it is for payee {rule.payee_id} alone",
    RuleMismatch.CASE: lambda rule, request, room: f"it is for case {rule.case_id} alone",
    RuleMismatch.AMOUNT: lambda rule, request, room: f"it is for at most {_dollars(rule.max_amount_cents)}",
    RuleMismatch.NO_ACCOUNT: lambda rule, request, room: "it keeps the account's minimum, and the case has no account",
    RuleMismatch.MINIMUM: _above_minimum,
    RuleMismatch.DAILY_LIMIT: _left_today,
}
_BARS: Mapping[Ineligibility, Callable[[Request], str]] = {
    Ineligibility.NOT_PENDING: lambda request: f"it is {request.status}, not pending",
    Ineligibility.ON_HOLD: lambda request: "it is on hold",
    Ineligibility.CASE_CLOSED: lambda request: "its case is closed",
    Ineligibility.PAYEE_INACTIVE: lambda request: "its payee is not active",
}


def _dollars(cents: int) -> str:
    return f"${cents / 100:,.2f}"
