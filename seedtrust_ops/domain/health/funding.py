"""Health of the funding account: the batches that wait because it does not cover them.

A batch that waits is sent by itself once it is covered; when it is checked again is decided in the transfers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.sql_ranges import unless_far_ahead
from seedtrust_ops.domain.transfers.funding import FundingOutcome, describe_account
from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import FundingCheck, HuntingtonBatch

INSUFFICIENT_FUNDING = "insufficient_funding"
MAX_BATCHES_LISTED = 20


@dataclass(frozen=True)
class _WaitingBatch:
    batch_id: int
    queued_at: datetime | None
    account_id: str
    outcome: str
    needed_cents: int
    reserved_cents: int
    available_cents: int | None
    detail: str | None
    checked_at: datetime


def insufficient_funding(session: Session) -> list[Finding]:
    """Find each funding account that does not cover what is to be sent, the missing amount and the batches that wait.

    A batch waits until it is covered or no longer in the queue; while it is checked again, it is `processing`.
    """
    rows = session.execute(
        select(
            HuntingtonBatch.id,
            unless_far_ahead(HuntingtonBatch.queued_at),
            FundingCheck.funding_account_id,
            FundingCheck.outcome,
            FundingCheck.needed_cents,
            FundingCheck.reserved_cents,
            FundingCheck.available_cents,
            FundingCheck.detail,
            FundingCheck.checked_at,
        )
        .join(FundingCheck, FundingCheck.batch_id == HuntingtonBatch.id)
        .where(
            HuntingtonBatch.status.in_(("queued", "processing")),
            FundingCheck.outcome != FundingOutcome.COVERED.value,
        )
        .order_by(HuntingtonBatch.queued_at, HuntingtonBatch.id)
    )
    by_account: defaultdict[str, list[_WaitingBatch]] = defaultdict(list)
    for row in rows:
        waiting = _WaitingBatch(*row)
        by_account[waiting.account_id].append(waiting)
    return [
        Finding(INSUFFICIENT_FUNDING, f"funding account {account_id}", Severity.HIGH, _describe(account_id, batches))
        for account_id, batches in by_account.items()
    ]


def _describe(account_id: str, batches: Sequence[_WaitingBatch]) -> str:
    newest = max(batches, key=lambda one: one.checked_at)
    needed_cents = sum(one.needed_cents for one in batches)
    waiting = "the batch that waits needs" if len(batches) == 1 else f"the {len(batches)} batches that wait need"
    needed = f"{waiting} {format_dollars(needed_cents)}"
    if newest.available_cents is not None:
        missing_cents = max(needed_cents + newest.reserved_cents - newest.available_cents, 0)
        account = describe_account(account_id, newest.available_cents, newest.reserved_cents)
        problem = f"{account}, and {needed}. {format_dollars(missing_cents)} is missing: transfer at least that to it."
    elif newest.outcome == FundingOutcome.REFUSED:
        problem = (
            f"{newest.detail} Now {needed}. Ask Huntington for the limits of funding account {account_id} and whether "
            "it holds back funds. The payment that was refused has failed: put it into a new batch."
        )
    else:
        problem = f"{newest.detail} Now {needed}. Check the bank's status."
    listed = ", ".join(_describe_batch(one) for one in batches[:MAX_BATCHES_LISTED])
    more = f" and {len(batches) - MAX_BATCHES_LISTED} more" if len(batches) > MAX_BATCHES_LISTED else ""
    return (
        f"{problem} Waiting, longest first: {listed}{more}. A batch is checked again every few minutes, and sent by "
        "itself once it is covered; a smaller one may be sent before a larger one."
    )


def _describe_batch(one: _WaitingBatch) -> str:
    queued = f", queued {one.queued_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if one.queued_at is not None else ""
    return f"batch {one.batch_id} ({format_dollars(one.needed_cents)}{queued})"
