"""Decides which rule of the bulk auto-approver approves which request. No side effects.

Decision and explanation share `rule_mismatches`. Rows are loaded in `queries`; approvals are recorded in `writer`.
See docs/decisions/approvals.md.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Self

from seedtrust_ops.formatting import MAX_TEXT_CHARS


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of `approval_rules`; amounts in cents. None means any, or no limit."""

    id: int
    name: str
    position: int
    is_enabled: bool
    category: str | None
    payee_id: int | None
    case_id: int | None
    max_amount_cents: int
    keep_minimum_balance: bool
    daily_limit_cents: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """A disbursement request with the fields that the decision needs; the amount is in cents."""

    id: int
    case_id: int
    payee_id: int
    category: str
    amount_cents: int
    status: str
    on_hold: bool
    case_status: str
    payee_is_active: bool
    requested_at: datetime
    has_returned_payment: bool = False


@dataclass(frozen=True)
class Approval:
    """A request and the rule that approves it."""

    request: Request
    rule: Rule


@dataclass
class RemainingLimits:
    """How much may still be approved, in cents."""

    above_minimum: dict[int, int] = field(default_factory=dict)
    """By case id: balance less minimum balance less approved, unpaid requests. No entry if the case has no account."""
    used_today: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """By rule id: the total that it approved on this calendar day."""

    @classmethod
    def of(cls, above_minimum: Mapping[int, int], used_today: Mapping[int, int]) -> Self:
        """Return limits with copies of these mappings."""
        return cls(dict(above_minimum), defaultdict(int, used_today))

    def after(self, approvals: Iterable[Approval]) -> "RemainingLimits":
        """Return the limits that remain after these approvals."""
        left = RemainingLimits.of(self.above_minimum, self.used_today)
        for approval in approvals:
            left.deduct(approval)
        return left

    def deduct(self, approval: Approval) -> None:
        """Deduct an approval from both limits, whether or not its rule uses them."""
        request = approval.request
        if request.case_id in self.above_minimum:
            self.above_minimum[request.case_id] -= request.amount_cents
        self.used_today[approval.rule.id] += request.amount_cents


class RuleMismatch(Enum):
    """Why a rule does not match a request."""

    DISABLED = auto()
    CATEGORY = auto()
    PAYEE = auto()
    CASE = auto()
    AMOUNT = auto()
    NO_ACCOUNT = auto()
    MINIMUM = auto()
    DAILY_LIMIT = auto()


class Ineligibility(Enum):
    """Why a request may not be approved by any rule."""

    NOT_PENDING = auto()
    ON_HOLD = auto()
    CASE_CLOSED = auto()
    PAYEE_INACTIVE = auto()
    CATEGORY_TOO_LONG = auto()
    PAYMENT_RETURNED = auto()


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules in evaluation order: by position, then by id."""
    return sorted(rules, key=lambda rule: (rule.position, rule.id))


def ineligibilities(request: Request) -> Iterator[Ineligibility]:
    """Yield each reason why no rule may approve the request."""
    if request.status != "pending":
        yield Ineligibility.NOT_PENDING
    if request.on_hold:
        yield Ineligibility.ON_HOLD
    if request.case_status == "closed":
        yield Ineligibility.CASE_CLOSED
    if not request.payee_is_active:
        yield Ineligibility.PAYEE_INACTIVE
    if len(request.category) > MAX_TEXT_CHARS:
        # Only its beginning is known, and another category may begin in the same way.
        yield Ineligibility.CATEGORY_TOO_LONG
    if request.has_returned_payment:
        yield Ineligibility.PAYMENT_RETURNED


def rule_mismatches(rule: Rule, request: Request, limits: RemainingLimits) -> Iterator[RuleMismatch]:
    """Yield each reason why the rule does not match the request; none means that it matches."""
    if not rule.is_enabled:
        yield RuleMismatch.DISABLED
    if rule.category is not None and rule.category != request.category:
        yield RuleMismatch.CATEGORY
    if rule.payee_id is not None and rule.payee_id != request.payee_id:
        yield RuleMismatch.PAYEE
    if rule.case_id is not None and rule.case_id != request.case_id:
        yield RuleMismatch.CASE
    if request.amount_cents > rule.max_amount_cents:
        yield RuleMismatch.AMOUNT
    if rule.keep_minimum_balance:
        if request.case_id not in limits.above_minimum:
            yield RuleMismatch.NO_ACCOUNT
        elif limits.above_minimum[request.case_id] < request.amount_cents:
            yield RuleMismatch.MINIMUM
    limit = rule.daily_limit_cents
    if limit is not None and limits.used_today.get(rule.id, 0) + request.amount_cents > limit:
        yield RuleMismatch.DAILY_LIMIT


def first_match(request: Request, rules: Sequence[Rule], limits: RemainingLimits) -> Rule | None:
    """Return the first of the rules, in the given order, that matches the request, or None."""
    return next((rule for rule in rules if next(rule_mismatches(rule, request, limits), None) is None), None)


def decide(requests: Iterable[Request], rules: Iterable[Rule], limits: RemainingLimits) -> Iterator[Approval]:
    """Yield the approvals in the order of the requests; no argument is modified.

    A request that would exceed a limit is skipped, and a later, smaller one may still be approved. A limit is one of
    a rule's conditions: if it would be exceeded, the next rule is evaluated.

    Args:
        requests: oldest first.
        rules: in any order.
        limits: what remains before the first request.
    """
    ordered = in_order(rules)
    left = limits.after(())
    for request in requests:
        if next(ineligibilities(request), None) is not None:
            continue
        rule = first_match(request, ordered, left)
        if rule is not None:
            approval = Approval(request, rule)
            left.deduct(approval)
            yield approval
