"""Shows people a day of transfers and a week of operations: money in dollars, tables with links, pictures.

What is shown was counted by `domain/`; amounts are also there as numbers, because Dagster draws those over time.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from seedtrust_ops.domain.transfer_days.batches import BatchOfDay, TransferDay
from seedtrust_ops.domain.transfer_days.picture import DayOfMoney, draw_month
from seedtrust_ops.domain.transfer_days.reconciling import Reconciliation
from seedtrust_ops.domain.weeks.figures import Week
from seedtrust_ops.domain.weeks.picture import draw_week
from seedtrust_ops.jobs.showing import ROWS_SHOWN, batch_link, dollars, markdown_table, picture, run_link

Metadata = dict[str, dg.MetadataValue[Any]]
BARS = "·▁▂▃▄▅▆▇█"


def day_metadata(day: TransferDay, month: Sequence[DayOfMoney]) -> Metadata:
    """Return a day's batches, each with the run that had it last, and the thirty days up to it, drawn."""
    return {
        "day": dg.MetadataValue.text(in_words(day.day)),
        "batches": dg.MetadataValue.int(day.batches),
        "transactions": dg.MetadataValue.int(day.transactions),
        "money sent": dg.MetadataValue.text(dollars(day.gone_cents)),
        "money sent, in dollars": dg.MetadataValue.float(day.gone_cents / 100),
        "thirty days at a glance": dg.MetadataValue.text(_glance([one.gone_cents for one in month])),
        "thirty days": picture(draw_month(month), "Transfers of thirty days"),
        "by status": markdown_table(
            ["status", "transactions", "amount"],
            [(one.status, one.transactions, dollars(one.amount_cents)) for one in day.by_status],
        ),
        f"batches (first {len(day.shown)} of {day.batches})": markdown_table(
            ["batch", "status", "queued", "transactions", "amount", "sent", "failed", "returned", "open", "run"],
            [_batch_row(one) for one in day.shown],
        ),
    }


def _batch_row(one: BatchOfDay) -> tuple[object, ...]:
    return (
        batch_link(one.batch_id),
        one.status,
        f"{one.queued_at:%H:%M}",
        one.transactions,
        dollars(one.amount_cents),
        f"{one.gone} ({dollars(one.gone_cents)})",
        one.failed,
        one.returned,
        one.still_open,
        run_link(one.run_id),
    )


def reconciliation_metadata(compared: Reconciliation, day: date) -> Metadata:
    """Return both sums of a day, and each transaction of which the bank says otherwise."""
    differences = compared.differences
    return {
        "day": dg.MetadataValue.text(in_words(day)),
        "transactions compared": dg.MetadataValue.int(compared.transactions),
        "sent, as we have it": dg.MetadataValue.text(dollars(compared.ours_cents)),
        "sent, as the bank has it": dg.MetadataValue.text(dollars(compared.at_bank_cents)),
        "difference": dg.MetadataValue.text(dollars(compared.at_bank_cents - compared.ours_cents)),
        f"differences (first {min(len(differences), ROWS_SHOWN)} of {len(differences)})": markdown_table(
            ["transaction", "batch", "our status", "our amount", "sent, as we have it", "the bank says", "at the bank"],
            [
                (
                    one.ours.id,
                    batch_link(one.ours.batch_id),
                    one.ours.status,
                    dollars(one.ours.amount_cents),
                    dollars(one.ours.gone_cents),
                    one.at_bank,
                    dollars(one.at_bank_cents),
                )
                for one in differences[:ROWS_SHOWN]
            ],
        ),
    }


def week_metadata(week: Week) -> Metadata:
    """Return a week's figures, day by day and job by job, and its picture."""
    return {
        "week": dg.MetadataValue.text(f"from {in_words(week.first)}"),
        "the week": picture(draw_week(week), "The week"),
        "runs": dg.MetadataValue.int(week.total("runs")),
        "failed runs": dg.MetadataValue.int(week.total("failed")),
        "approvals": dg.MetadataValue.int(week.total("approvals")),
        "money approved": dg.MetadataValue.text(dollars(week.total("approved_cents"))),
        "money moved": dg.MetadataValue.text(dollars(week.total("moved_cents"))),
        "money moved, in dollars": dg.MetadataValue.float(week.total("moved_cents") / 100),
        "money returned": dg.MetadataValue.text(dollars(week.total("returned_cents"))),
        "reports made": dg.MetadataValue.int(week.total("reports")),
        "longest wait for a report": dg.MetadataValue.text(_waited(week.longest_wait_seconds)),
        "day by day": markdown_table(
            ["day", "runs", "failed", "approvals", "approved", "moved", "returned", "reports", "half waited less than"],
            [
                (
                    f"{day.day:%a} {day.day.day}",
                    day.runs,
                    day.failed,
                    day.approvals,
                    dollars(day.approved_cents),
                    dollars(day.moved_cents),
                    dollars(day.returned_cents),
                    day.reports,
                    _waited(day.half_waited_seconds),
                )
                for day in week.days
            ],
        ),
        "job by job": markdown_table(
            ["job", "runs", "failed", "expired or revoked", "longest run"],
            [(one.name, one.runs, one.failed, one.unserved, _waited(one.longest_seconds)) for one in week.jobs],
        ),
        "alerts opened": markdown_table(["rule", "alerts"], list(week.alerts.items())),
    }


def in_words(day: date) -> str:
    """Return a day as people say it: Monday, November 23, 2026."""
    return f"{day:%A, %B} {day.day}, {day.year}"


def _glance(cents: Sequence[int]) -> str:
    """Return a bar a day, as text: it stands in the table itself, where Dagster puts a picture behind a button."""
    most = max(*cents, 1)
    return "".join(BARS[0 if one <= 0 else 1 + one * (len(BARS) - 2) // most] for one in cents)


def _waited(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
