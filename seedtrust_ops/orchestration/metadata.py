"""Builds the metadata that Dagster shows for runs and assets: money in dollars, tables in Markdown.

Labels are in sentence case, and no account number is shown in full. This module only reads.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg
from sqlalchemy import case, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.balances.balance_invariants import Violations
from seedtrust_ops.domain.balances.snapshot import BalanceSnapshot, render_histogram
from seedtrust_ops.domain.operations_review.chart import render_week
from seedtrust_ops.domain.operations_review.weekly_figures import WeeklyFigures
from seedtrust_ops.domain.reconciliation.bank_comparison import Reconciliation
from seedtrust_ops.domain.reconciliation.daily_batches import DailyBatch, DailyTotals, DailyTransfers, render_month
from seedtrust_ops.domain.reconciliation.unknown_at_bank import UnknownAtBank
from seedtrust_ops.domain.reports.report_content import format_value
from seedtrust_ops.domain.transfers.auto_heal import HealReport
from seedtrust_ops.domain.transfers.batch_processor import BatchReport
from seedtrust_ops.domain.transfers.evidence import is_awaiting_settlement
from seedtrust_ops.domain.transfers.funding import FundingDecision
from seedtrust_ops.domain.transfers.settlement_deadlines import settles_on
from seedtrust_ops.formatting import format_dollars, format_short_date, format_short_duration, single_line
from seedtrust_ops.tables import HuntingtonTransaction, TransferEvidence
from seedtrust_ops.tag_names import BATCH_TAG, PROGRESS_TAG

if TYPE_CHECKING:
    from seedtrust_ops.domain.reports.generator import GeneratedReport

ROWS_SHOWN = 50
MAX_CELL_CHARS = 500
SPARKLINE_BLOCKS = "·▁▂▃▄▅▆▇█"
Metadata = dict[str, dg.MetadataValue[Any]]


@dataclass(frozen=True)
class Link:
    """A table cell that links to a page of the web server; `path` starts with a slash."""

    text: str
    path: str


def run_link(run_id: str | None) -> Link | str:
    """Return a link to a run, labeled with the first part of its id as in Dagster's lists; "" if there is no run."""
    return Link(run_id.partition("-")[0], f"/runs/{quote(run_id)}") if run_id else ""


def batch_link(batch_id: int) -> Link:
    """Return a link to the list of all runs of a batch."""
    return Link(str(batch_id), f"/runs?q[0]=tag:{BATCH_TAG}={batch_id}")


def asset_link(key: Sequence[str], text: str) -> Link:
    """Return a link to an asset."""
    return Link(text, "/assets/" + "/".join(quote(part) for part in key))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """Return a Markdown table, or "none" if there are no rows. Cell text is cut, and cannot break the table."""
    rows = list(rows)
    if not rows:
        return dg.MetadataValue.md("none")
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def batch_metadata(sessions: sessionmaker[Session], report: BatchReport) -> dict[str, dg.MetadataValue[Any]]:
    """Return a batch's status and transactions, those that did not go through first.

    The tables come before the rest, because Dagster lays a button over the end of what does not fit.
    "Settles by" is the last day of what the bank has accepted: after it, the transfer is overdue.
    """
    with sessions() as session:
        rows = session.execute(
            select(
                HuntingtonTransaction.id,
                HuntingtonTransaction.method,
                HuntingtonTransaction.payee_name,
                HuntingtonTransaction.account_number_last4,
                HuntingtonTransaction.amount_cents,
                HuntingtonTransaction.status,
                HuntingtonTransaction.failure_reason,
                HuntingtonTransaction.bank_transfer_id,
                case((is_awaiting_settlement(), TransferEvidence.bank_created_at)).label("accepted_at"),
            )
            .outerjoin(TransferEvidence, TransferEvidence.transaction_id == HuntingtonTransaction.id)
            .where(HuntingtonTransaction.batch_id == report.batch_id)
            .order_by(HuntingtonTransaction.status.in_(("submitted", "completed")), HuntingtonTransaction.id)
            .limit(ROWS_SHOWN)
        ).all()
    total = sum(report.counts.values())
    return {
        "Batch": dg.MetadataValue.int(report.batch_id),
        "Status": dg.MetadataValue.text(report.status),
        f"Transactions (first {len(rows)} of {total})": markdown_table(
            ["Transaction", "Method", "Payee", "Account", "Amount", "Status", "Reason", "Settles by", "Bank transfer"],
            [
                (
                    row.id,
                    row.method,
                    row.payee_name,
                    f"…{row.account_number_last4[-4:]}",
                    format_dollars(row.amount_cents),
                    row.status,
                    row.failure_reason or "",
                    format_short_date(settles_on(row.method, row.accepted_at)) if row.accepted_at is not None else "",
                    row.bank_transfer_id or "",
                )
                for row in rows
            ],
        ),
        "By status": markdown_table(
            ["Status", "Transactions", "Amount"],
            [(status, count, format_dollars(report.cents[status])) for status, count in sorted(report.counts.items())],
        ),
        "All runs of this batch": dg.MetadataValue.url(batch_link(report.batch_id).path),
        "All batches by day": dg.MetadataValue.asset(dg.AssetKey("huntington_transfers")),
        **({"Held by run": dg.MetadataValue.dagster_run(report.held_by)} if report.held_by else {}),
        **(_funding_metadata(report.awaits) if report.awaits is not None else {}),
    }


def _funding_metadata(awaits: FundingDecision) -> Metadata:
    missing, available = awaits.missing_cents, awaits.available_cents
    return {
        "Waits for funds": dg.MetadataValue.text(awaits.describe()),
        "Missing in the funding account": dg.MetadataValue.text(
            "not known" if missing is None else format_dollars(missing)
        ),
        "Needed": dg.MetadataValue.text(format_dollars(awaits.needed_cents)),
        "Available in the funding account": dg.MetadataValue.text(
            "not known" if available is None else format_dollars(available)
        ),
        "Reserved for other transfers": dg.MetadataValue.text(format_dollars(awaits.reserved_cents)),
    }


def heal_metadata(report: HealReport) -> dict[str, dg.MetadataValue[Any]]:
    """Return what an auto-heal run checked and changed."""
    changes = report.changes
    return {
        "Transfers checked with the bank": dg.MetadataValue.int(report.inquiry.looked_up),
        "Transfers read from the bank feed": dg.MetadataValue.int(report.feed.transfers),
        "Batches requeued after a worker crash": _join_ids(report.abandoned),
        "Transactions unknown to the bank, pending again": _join_ids(report.inquiry.requeued_transactions),
        "Batches requeued": _join_ids(report.inquiry.requeued_batches),
        "Batches finished": markdown_table(
            ["Batch", "Status"],
            [(batch_link(batch_id), status) for batch_id, status in sorted(report.finished.items())],
        ),
        f"Changes (first {min(len(changes), ROWS_SHOWN)} of {len(changes)})": markdown_table(
            ["Transaction", "Batch", "Old status", "New status", "Amount", "Bank transfer"],
            [
                (
                    one.transaction_id,
                    batch_link(one.batch_id),
                    one.before,
                    one.after,
                    format_dollars(one.transfer.amount_cents),
                    one.transfer.id,
                )
                for one in changes[:ROWS_SHOWN]
            ],
        ),
    }


def balance_metadata(snapshot: BalanceSnapshot, *, location: str, size: int) -> dict[str, dg.MetadataValue[Any]]:
    """Return the totals of a balance snapshot and the location of its file; `size` is in bytes."""
    return {
        "Accounts": dg.MetadataValue.int(snapshot.accounts),
        "Below minimum": dg.MetadataValue.int(snapshot.below_minimum),
        "Total balance": dg.MetadataValue.text(format_dollars(snapshot.balance_cents)),
        "Total minimum balance": dg.MetadataValue.text(format_dollars(snapshot.minimum_balance_cents)),
        "Total shortfall": dg.MetadataValue.text(format_dollars(snapshot.shortfall_cents)),
        "Alerts opened": dg.MetadataValue.int(snapshot.alerts.opened),
        "Alerts resolved": dg.MetadataValue.int(snapshot.alerts.resolved),
        "Alerts updated": dg.MetadataValue.int(snapshot.alerts.changed),
        "Location": dg.MetadataValue.path(location),
        "File size (bytes)": dg.MetadataValue.int(size),
        f"Largest shortfalls (first {len(snapshot.worst)} of {snapshot.below_minimum})": markdown_table(
            ["Case", "Account", "Balance", "Minimum", "Shortfall"],
            [
                (
                    row["case_number"],
                    row["account_id"],
                    format_dollars(row["balance_cents"]),
                    format_dollars(row["minimum_balance_cents"]),
                    format_dollars(row["shortfall_cents"]),
                )
                for row in snapshot.worst
            ],
        ),
        "Histogram": inline_image(render_histogram(snapshot), "Active case accounts by balance"),
    }


def violations_table(violations: Violations) -> dg.MarkdownMetadataValue:
    """Return the first records that violate an accounting check; money in dollars."""
    return markdown_table(
        [name.removesuffix("_cents").replace("_", " ").capitalize() for name in violations.columns],
        [
            [
                format_dollars(int(value)) if name.endswith("_cents") else value
                for name, value in zip(violations.columns, row, strict=True)
            ]
            for row in violations.rows
        ],
    )


def report_metadata(generated: "GeneratedReport") -> dict[str, dg.MetadataValue[Any]]:
    """Return a report's description, its location and its first rows."""
    built = generated.built
    return {
        "Request": dg.MetadataValue.int(generated.request.id),
        "Description": dg.MetadataValue.text(built.report.about),
        "Format": dg.MetadataValue.text(generated.request.format),
        "Rows": dg.MetadataValue.int(built.rows),
        "File size (bytes)": dg.MetadataValue.int(built.size),
        "SHA-256": dg.MetadataValue.text(built.sha256),
        "Wait (seconds)": dg.MetadataValue.float(round(generated.waited_seconds, 1)),
        "Location": dg.MetadataValue.path(generated.location),
        "Totals": markdown_table(
            ["Total", "Value"], [(total.title, format_value(total.type, total.value)) for total in built.report.totals]
        ),
        f"Preview (first {len(built.preview)} of {built.rows})": markdown_table(
            [column.title for column in built.report.columns], built.preview
        ),
    }


def inline_image(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """Return a PNG embedded in the metadata as a data URL."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{b64encode(png).decode()})")


def _join_ids(ids: Sequence[int]) -> dg.TextMetadataValue:
    shown = ", ".join(str(one) for one in ids[:ROWS_SHOWN])
    return dg.MetadataValue.text(
        f"{shown} and {len(ids) - ROWS_SHOWN} more" if len(ids) > ROWS_SHOWN else shown or "none"
    )


def _cell(value: object) -> str:
    if isinstance(value, Link):
        return f"[{_cell(value.text)}]({value.path})"
    text = single_line(str(value), MAX_CELL_CHARS)
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"&#{ord(character)};")
    return text


def transfer_day_metadata(day: DailyTransfers, month: Sequence[DailyTotals]) -> Metadata:
    """Return a day's batches, each with the last run that held it, and a chart of the 30 days through that day."""
    return {
        "Day": dg.MetadataValue.text(format_date(day.day)),
        "Batches": dg.MetadataValue.int(day.batches),
        "Transactions": dg.MetadataValue.int(day.transactions),
        "Money sent": dg.MetadataValue.text(format_dollars(day.sent_cents)),
        "Money sent (dollars)": dg.MetadataValue.float(day.sent_cents / 100),
        "Last 30 days at a glance": dg.MetadataValue.text(_sparkline([one.sent_cents for one in month])),
        "Last 30 days": inline_image(render_month(month), "Transfers, last 30 days"),
        "By status": markdown_table(
            ["Status", "Transactions", "Amount"],
            [(one.status, one.transactions, format_dollars(one.amount_cents)) for one in day.by_status],
        ),
        f"Batches (first {len(day.shown)} of {day.batches})": markdown_table(
            ["Batch", "Status", "Queued", "Transactions", "Amount", "Sent", "Failed", "Returned", "Open", "Run"],
            [_batch_row(one) for one in day.shown],
        ),
    }


def _batch_row(one: DailyBatch) -> tuple[object, ...]:
    return (
        batch_link(one.batch_id),
        one.status,
        f"{one.queued_at:%H:%M}",
        one.transactions,
        format_dollars(one.amount_cents),
        f"{one.sent} ({format_dollars(one.sent_cents)})",
        one.failed,
        one.returned,
        one.still_open,
        run_link(one.run_id),
    )


def reconciliation_metadata(compared: Reconciliation, days: Sequence[date]) -> Metadata:
    """Return our total and the bank's total for the days, and each transaction on which they or the ledger differ."""
    differences = compared.differences
    return {
        "Day" if len(days) == 1 else "Days": dg.MetadataValue.text(format_days(days)),
        "Transactions compared": dg.MetadataValue.int(compared.transactions),
        "Sent according to SeedTrust": dg.MetadataValue.text(format_dollars(compared.local_cents)),
        "Sent according to the bank": dg.MetadataValue.text(format_dollars(compared.bank_cents)),
        "Difference": dg.MetadataValue.text(format_dollars(compared.bank_cents - compared.local_cents)),
        f"Differences (first {min(len(differences), ROWS_SHOWN)} of {len(differences)})": markdown_table(
            [
                "Transaction",
                "Batch",
                "Our status",
                "Our amount",
                "Our sent amount",
                "Booked",
                "Bank status",
                "Bank amount",
            ],
            [
                (
                    one.local.id,
                    batch_link(one.local.batch_id),
                    one.local.status,
                    format_dollars(one.local.amount_cents),
                    format_dollars(one.local.sent_cents),
                    format_dollars(one.local.booked_cents),
                    one.bank_status,
                    format_dollars(one.bank_cents),
                )
                for one in differences[:ROWS_SHOWN]
            ],
        ),
    }


def unknown_at_bank_metadata(unknown: UnknownAtBank) -> Metadata:
    """Return each transfer at the bank that nothing explains, and when the bank's feed was last read."""
    shown = unknown.transfers[:ROWS_SHOWN]
    read_at = unknown.feed_read_at
    return {
        "Feed last read": dg.MetadataValue.text(f"{read_at:%Y-%m-%d %H:%M} UTC" if read_at is not None else "never"),
        "Unknown transfers": dg.MetadataValue.int(len(unknown.transfers)),
        "Unknown amount": dg.MetadataValue.text(format_dollars(unknown.amount_cents)),
        f"Transfers (first {len(shown)} of {len(unknown.transfers)})": markdown_table(
            ["Bank transfer", "First seen", "Method", "Status", "Amount", "Why nothing explains it"],
            [
                (
                    one.bank_transfer_id,
                    f"{one.first_seen_at:%Y-%m-%d %H:%M} UTC",
                    one.method,
                    one.status,
                    format_dollars(one.amount_cents),
                    one.problem,
                )
                for one in shown
            ],
        ),
    }


def weekly_review_metadata(week: WeeklyFigures) -> Metadata:
    """Return a week's chart and its figures by day and by job."""
    return {
        "Week": dg.MetadataValue.text(f"Starting {format_date(week.first)}"),
        "Chart": inline_image(render_week(week), "The week"),
        "Runs": dg.MetadataValue.int(week.total("runs")),
        "Failed runs": dg.MetadataValue.int(week.total("failed")),
        "Approvals": dg.MetadataValue.int(week.total("approvals")),
        "Money approved": dg.MetadataValue.text(format_dollars(week.total("approved_cents"))),
        "Money moved": dg.MetadataValue.text(format_dollars(week.total("moved_cents"))),
        "Money moved (dollars)": dg.MetadataValue.float(week.total("moved_cents") / 100),
        "Money returned": dg.MetadataValue.text(format_dollars(week.total("returned_cents"))),
        "Reports generated": dg.MetadataValue.int(week.total("reports")),
        "Longest wait for a report": dg.MetadataValue.text(format_short_duration(week.max_wait_seconds)),
        "By day": markdown_table(
            ["Day", "Runs", "Failed", "Approvals", "Approved", "Moved", "Returned", "Reports", "Median wait"],
            [
                (
                    f"{day.day:%a} {day.day.day}",
                    day.runs,
                    day.failed,
                    day.approvals,
                    format_dollars(day.approved_cents),
                    format_dollars(day.moved_cents),
                    format_dollars(day.returned_cents),
                    day.reports,
                    format_short_duration(day.median_wait_seconds),
                )
                for day in week.days
            ],
        ),
        "By job": markdown_table(
            ["Job", "Runs", "Failed", "Expired or revoked", "Longest run"],
            [
                (one.name, one.runs, one.failed, one.not_executed, format_short_duration(one.max_seconds))
                for one in week.jobs
            ],
        ),
        "Alerts opened": markdown_table(["Rule", "Alerts"], list(week.alerts.items())),
    }


def format_date(day: date) -> str:
    """Return a date in full: Monday, November 23, 2026."""
    return f"{day:%A, %B} {day.day}, {day.year}"


def format_days(days: Sequence[date]) -> str:
    """Return one day or consecutive ones: Monday, November 23, 2026 to Tuesday, November 24, 2026."""
    return format_date(days[0]) if len(days) == 1 else f"{format_date(days[0])} to {format_date(days[-1])}"


def _sparkline(cents: Sequence[int]) -> str:
    """Return one bar per day as text. It shows in the table itself; Dagster hides an image behind a button."""
    highest = max(*cents, 1)
    return "".join(
        SPARKLINE_BLOCKS[0 if one <= 0 else 1 + one * (len(SPARKLINE_BLOCKS) - 2) // highest] for one in cents
    )


def show_progress(context: dg.OpExecutionContext, *, done: int, total: int) -> None:
    """Tag the run with its progress, `done` of `total` steps."""
    context.instance.add_run_tags(context.run_id, {PROGRESS_TAG: f"{done} of {total}"})
