"""By when the bank should have settled a transfer that it accepted, and which transfers are overdue.

The rules are in docs/rules.md, section 4; the bank's days are in `domain/banking_days`. What is done about an overdue
transfer is in `domain/health/settlement`.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from seedtrust_ops.domain.banking_days import add_banking_days, is_banking_day

EASTERN = ZoneInfo("America/New_York")
"""The time zone of the Federal Reserve's day, wherever our office is."""
CUTOFF = time(17)
"""What the bank accepts later than this counts as accepted on the next banking day."""
ACH_BANKING_DAYS = 3
WIRES_SETTLE_FROM = time(9)
WIRE_DURATION = timedelta(hours=1)


def settlement_deadline(method: str, accepted_at: datetime) -> datetime:
    """Return when a transfer that is not settled is overdue (UTC).

    An ACH is overdue when the third banking day after its acceptance ends, a wire an hour after its acceptance, counted
    between 09:00 and 18:00 Eastern of a banking day.

    Args:
        method: 'ach' or 'wire'.
        accepted_at: the bank's `created_at`, aware.
    """
    local = accepted_at.astimezone(EASTERN)
    counted = local if is_banking_day(local.date()) and local.time() <= CUTOFF else _next_opening(local.date())
    if method == "wire":
        started = max(counted, _eastern(counted.date(), WIRES_SETTLE_FROM))
        return (started + WIRE_DURATION).astimezone(UTC)
    last_day = add_banking_days(counted.date(), ACH_BANKING_DAYS)
    return _eastern(last_day + timedelta(days=1), time.min).astimezone(UTC)


def settles_on(method: str, accepted_at: datetime) -> date:
    """Return the last Eastern day on which a transfer settles if it is not overdue; arguments as above."""
    return (settlement_deadline(method, accepted_at) - timedelta(microseconds=1)).astimezone(EASTERN).date()


def latest_overdue(method: str, now: datetime) -> datetime:
    """Return the latest acceptance by which a transfer is overdue at `now` (UTC).

    It lets the database find overdue transfers by an index: a later acceptance never has an earlier deadline.

    Args:
        method: 'ach' or 'wire'.
        now: aware.
    """
    local = now.astimezone(EASTERN)
    last_day = add_banking_days(local.date(), -1)
    if method != "wire":
        return _eastern(add_banking_days(last_day, -ACH_BANKING_DAYS), CUTOFF).astimezone(UTC)
    if is_banking_day(local.date()) and local >= _eastern(local.date(), WIRES_SETTLE_FROM) + WIRE_DURATION:
        return min(local - WIRE_DURATION, _eastern(local.date(), CUTOFF)).astimezone(UTC)
    return _eastern(last_day, CUTOFF).astimezone(UTC)


def _next_opening(day: date) -> datetime:
    return _eastern(add_banking_days(day, 1), WIRES_SETTLE_FROM)


def _eastern(day: date, at: time) -> datetime:
    return datetime.combine(day, at, EASTERN)
