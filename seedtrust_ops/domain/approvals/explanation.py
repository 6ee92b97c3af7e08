"""Explains, rule by rule, why a request is approved or not, as a run would decide it now.

It uses the decision functions in `rules`; no condition is evaluated a second way here.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from itertools import takewhile

from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.queries import (
    database_time,
    find_request,
    load_rules,
    pending_requests,
    remaining_limits,
)
from seedtrust_ops.domain.approvals.rules import (
    Ineligibility,
    RemainingLimits,
    Request,
    Rule,
    RuleMismatch,
    decide,
    in_order,
    ineligibilities,
    rule_mismatches,
)
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import MAX_TEXT_CHARS, format_dollars


class UnknownDisbursementRequest(SeedTrustError):
    """No disbursement request has this id."""


def explain(session: Session, request_id: int, zone: tzinfo) -> list[str]:
    """Return why the request is approved or not: a line for the request, one for each rule, and the outcome.

    Older requests use up limits first, as in a run. A request that is already approved is explained as if it were
    not, and does not count toward the limits.

    Args:
        session: any session; nothing is changed.
        request_id: the id of the request.
        zone: the office's time zone; daily limits apply to its calendar day.

    Raises:
        UnknownDisbursementRequest: if there is no such request.
    """
    request = find_request(session, request_id)
    if request is None:
        raise UnknownDisbursementRequest(
            f"There is no disbursement request {request_id}. Check the number on the case page."
        )
    rules = load_rules(session, enabled_only=False)
    limits = remaining_limits(session, database_time(session), zone, excluding=request_id)
    older = takewhile(
        lambda one: _queue_position(one) < _queue_position(request), pending_requests(session, rules, limits)
    )
    return explain_lines(request, rules, limits.after(decide(older, rules, limits)))


def explain_lines(request: Request, rules: Iterable[Rule], limits: RemainingLimits) -> list[str]:
    """Return the lines of `explain` for a request with these limits left when its turn comes."""
    lines = [
        f"Request {request.id}: {format_dollars(request.amount_cents)} for '{request.category}', "
        f"case {request.case_id}, payee {request.payee_id}, {request.status}."
    ]
    ineligible = [_INELIGIBILITY_TEXTS[reason](request) for reason in ineligibilities(request)]
    approving: Rule | None = None
    ordered = in_order(rules)
    for rule in ordered:
        mismatches = rule_mismatches(rule, request, limits)
        reasons = [_MISMATCH_TEXTS[mismatch](rule, request, limits) for mismatch in mismatches]
        if reasons:
            verdict = f"does not match: {'; '.join(reasons)}"
        elif approving is not None:
            verdict = f"also matches, but rule {approving.id} comes first"
        else:
            verdict = "matches"
            approving = rule
        lines.append(f"Rule {rule.id} '{rule.name}' (position {rule.position}) {verdict}.")
    if ineligible:
        lines.append(f"No rule approves it: {'; '.join(ineligible)}.")
    elif approving is not None:
        lines.append(f"Rule {approving.id} approves it in the next run.")
    else:
        lines.append("No rule approves it." if ordered else "No rule approves it: there are no rules.")
    return lines


def _queue_position(request: Request) -> tuple[object, ...]:
    return request.requested_at, request.id


def _above_minimum(rule: Rule, request: Request, limits: RemainingLimits) -> str:
    left = limits.above_minimum[request.case_id]
    position = f"already {format_dollars(-left)} below" if left < 0 else f"{format_dollars(left)} above"
    return f"the account must keep its minimum balance; after approved, unpaid requests it is {position} the minimum"


def _left_today(rule: Rule, request: Request, limits: RemainingLimits) -> str:
    limit, used = rule.daily_limit_cents or 0, limits.used_today.get(rule.id, 0)
    return f"{format_dollars(max(limit - used, 0))} of its daily limit of {format_dollars(limit)} is left today"


_MISMATCH_TEXTS: Mapping[RuleMismatch, Callable[[Rule, Request, RemainingLimits], str]] = {
    RuleMismatch.DISABLED: lambda rule, request, limits: "it is disabled",
    RuleMismatch.CATEGORY: lambda rule, request, limits: f"it applies only to category '{rule.category}'",
    RuleMismatch.PAYEE: lambda rule, request, limits: f"it applies only to payee {rule.payee_id}",
    RuleMismatch.CASE: lambda rule, request, limits: f"it applies only to case {rule.case_id}",
    RuleMismatch.AMOUNT: lambda rule, request, limits: f"its maximum amount is {format_dollars(rule.max_amount_cents)}",
    RuleMismatch.NO_ACCOUNT: lambda rule, request, limits: (
        "it requires the account to keep its minimum balance, but the case has no account"
    ),
    RuleMismatch.MINIMUM: _above_minimum,
    RuleMismatch.DAILY_LIMIT: _left_today,
}
_INELIGIBILITY_TEXTS: Mapping[Ineligibility, Callable[[Request], str]] = {
    Ineligibility.NOT_PENDING: lambda request: f"it is {request.status}, not pending",
    Ineligibility.ON_HOLD: lambda request: "it is on hold",
    Ineligibility.CASE_CLOSED: lambda request: "its case is closed",
    Ineligibility.PAYEE_INACTIVE: lambda request: "its payee is not active",
    Ineligibility.PAYMENT_RETURNED: lambda request: (
        "the bank returned a payment of it, so only a person may approve it again"
    ),
    Ineligibility.CATEGORY_TOO_LONG: lambda request: f"its category is longer than {MAX_TEXT_CHARS:,} characters",
}
