"""Shows people a day of transfers and a week of operations: money in dollars, tables with links, pictures.

What is shown was counted by `domain/`; amounts are also there as numbers, because Dagster draws those over time.
"""

from typing import Any

import dagster as dg

from seedtrust_ops.domain.transfer_days.batches import BatchOfDay, TransferDay
from seedtrust_ops.domain.transfer_days.reconciling import Reconciliation
from seedtrust_ops.domain.weeks.figures import Week
from seedtrust_ops.jobs.showing import ROWS_SHOWN, dollars, markdown_table, picture, run_link

Metadata = dict[str, dg.MetadataValue[Any]]


def day_metadata(day: TransferDay, *, png: bytes) -> Metadata:
    """Return a day's batches, each with the run that had it last, and the picture of the thirty days up to it."""
    return {
        "day": dg.MetadataValue.text(f"{day.day:%A}, {day.day:%B} {day.day.day}, {day.day.year}"),
        "batches": dg.MetadataValue.int(day.batches),
        "transactions": dg.MetadataValue.int(day.transactions),
        "money sent": dg.MetadataValue.text(dollars(day.gone_cents)),
        "money sent, in dollars": dg.MetadataValue.float(day.gone_cents / 100),
        "by status": markdown_table(
            ["status", "transactions", "amount"],
            [(one.status, one.transactions, dollars(one.amount_cents)) for one in day.by_status],
        ),
        f"batches (first {len(day.shown)} of {day.batches})": markdown_table(
            ["batch", "status", "queued", "transactions", "amount", "sent", "failed", "returned", "open", "run"],
            [_batch_row(one) for one in day.shown],
        ),
        "thirty days": picture(png, "Transfers of thirty days"),
    }


def _batch_row(one: BatchOfDay) -> tuple[object, ...]:
    return (
        one.batch_id,
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


def reconciliation_metadata(compared: Reconciliation) -> Metadata:
    """Return both sums of a day, and each transaction of which the bank says otherwise."""
    differences = compared.differences
    return {
        "transactions compared": dg.MetadataValue.int(compared.transactions),
        "sent, as we have it": dg.MetadataValue.text(dollars(compared.ours_cents)),
        "sent, as the bank has it": dg.MetadataValue.text(dollars(compared.at_bank_cents)),
        "difference": dg.MetadataValue.text(dollars(compared.at_bank_cents - compared.ours_cents)),
        f"differences (first {min(len(differences), ROWS_SHOWN)} of {len(differences)})": markdown_table(
            ["transaction", "batch", "our status", "our amount", "sent, as we have it", "the bank says", "at the bank"],
            [
                (
                    one.ours.id,
                    one.ours.batch_id,
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


def week_metadata(week: Week, *, png: bytes) -> Metadata:
    """Return a week's figures, day by day and job by job, and its picture."""
    return {
        "week": dg.MetadataValue.text(f"from Monday, {week.first:%B} {week.first.day}, {week.first.year}"),
        "the week": picture(png, "The week"),
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


def _waited(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
