"""Which rule of the bulk auto-approver approves which request: the decision itself, pure.

Deciding and explaining ask the same question, `hurdles`; where the rows come from and who records the outcome is
not here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Self


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as `approval_rules` has it; amounts in cents, None stands for any (or for no limit)."""

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
    """A disbursement request with what deciding needs to know of it; the amount in cents."""

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


@dataclass(frozen=True)
class Approval:
    """A rule approves a request."""

    request: Request
    rule: Rule


@dataclass
class RemainingLimits:
    """How much may still be approved, in cents."""

    above_minimum: dict[int, int] = field(default_factory=dict)
    """By case: the account's balance, less its minimum, less what is approved and not paid; no account, no entry."""
    used_today: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """By rule: what it approved on this calendar day."""

    @classmethod
    def of(cls, above_minimum: Mapping[int, int], used_today: Mapping[int, int]) -> Self:
        """Return a room of its own, made from these."""
        return cls(dict(above_minimum), defaultdict(int, used_today))

    def less(self, approvals: Iterable[Approval]) -> "RemainingLimits":
        """Return the room that these approvals leave."""
        left = RemainingLimits.of(self.above_minimum, self.used_today)
        for approval in approvals:
            left.take(approval)
        return left

    def take(self, approval: Approval) -> None:
        """Take up what an approval needs, whether or not its rule looks at it."""
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
    """Why no rule may approve a request, whatever it says."""

    NOT_PENDING = auto()
    ON_HOLD = auto()
    CASE_CLOSED = auto()
    PAYEE_INACTIVE = auto()


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules in the order in which they are asked: by position, then by id."""
    return sorted(rules, key=lambda rule: (rule.position, rule.id))


def bars(request: Request) -> Iterator[Ineligibility]:
    """Yield each reason why the request may not be approved automatically at all."""
    if request.status != "pending":
        yield Ineligibility.NOT_PENDING
    if request.on_hold:
        yield Ineligibility.ON_HOLD
    if request.case_status == "closed":
        yield Ineligibility.CASE_CLOSED
    if not request.payee_is_active:
        yield Ineligibility.PAYEE_INACTIVE


def hurdles(rule: Rule, request: Request, room: RemainingLimits) -> Iterator[RuleMismatch]:
    """Yield each reason why the rule does not match the request; a rule without one matches."""
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
        if request.case_id not in room.above_minimum:
            yield RuleMismatch.NO_ACCOUNT
        elif room.above_minimum[request.case_id] < request.amount_cents:
            yield RuleMismatch.MINIMUM
    limit = rule.daily_limit_cents
    if limit is not None and room.used_today.get(rule.id, 0) + request.amount_cents > limit:
        yield RuleMismatch.DAILY_LIMIT


def first_match(request: Request, rules: Sequence[Rule], room: RemainingLimits) -> Rule | None:
    """Return the first of the rules, in the order given, that matches the request; None where none does."""
    return next((rule for rule in rules if next(hurdles(rule, request, room), None) is None), None)


def decide(requests: Iterable[Request], rules: Iterable[Rule], room: RemainingLimits) -> Iterator[Approval]:
    """Yield what is approved, in the order of the requests; nothing that is passed in is changed.

    A request that would break a limit is passed over, and a later, smaller one may still pass. A limit is one of
    the conditions of a rule: where it would be broken, the next rule is asked.

    Args:
        requests: oldest first.
        rules: in any order.
        room: what is left before the first request.
    """
    ordered = in_order(rules)
    left = room.less(())
    for request in requests:
        if next(bars(request), None) is not None:
            continue
        rule = first_match(request, ordered, left)
        if rule is not None:
            approval = Approval(request, rule)
            left.take(approval)
            yield approval
