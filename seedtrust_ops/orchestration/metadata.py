"""Shows people what a run did: money in dollars, tables in Markdown; never an account number.

It only reads; what is shown here was recorded by `domain/` before.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.balances.audit import Violations
from seedtrust_ops.domain.balances.chart import draw_histogram
from seedtrust_ops.domain.balances.snapshot import BalanceSheet
from seedtrust_ops.domain.reports.report_content import format_value
from seedtrust_ops.domain.transfers.auto_heal import HealReport
from seedtrust_ops.domain.transfers.batch_processor import BatchReport
from seedtrust_ops.tables import HuntingtonTransaction
from seedtrust_ops.tag_names import BATCH_TAG

if TYPE_CHECKING:
    from seedtrust_ops.domain.reports.generator import MadeReport

from datetime import date

from seedtrust_ops.domain.operations_review.chart import draw_week
from seedtrust_ops.domain.operations_review.weekly_figures import Week
from seedtrust_ops.domain.reconciliation.bank_comparison import Reconciliation
from seedtrust_ops.domain.reconciliation.chart import DayOfMoney, draw_month
from seedtrust_ops.domain.reconciliation.daily_batches import BatchOfDay, TransferDay
from seedtrust_ops.tag_names import PROGRESS_TAG

ROWS_SHOWN = 50


@dataclass(frozen=True)
class Link:
    """A word in a table that leads to a page of the web server; `path` begins with a stroke."""

    text: str
    path: str


def run_link(run_id: str | None) -> Link | str:
    """Return the link to a run, named by the first part of its id as in Dagster's lists; "" for none."""
    return Link(run_id.partition("-")[0], f"/runs/{quote(run_id)}") if run_id else ""


def batch_link(batch_id: int) -> Link:
    """Return the link to the list of all runs that a batch had."""
    return Link(str(batch_id), f"/runs?q[0]=tag:{BATCH_TAG}={batch_id}")


def asset_link(key: Sequence[str], text: str) -> Link:
    """Return the link to an asset."""
    return Link(text, "/assets/" + "/".join(quote(part) for part in key))


def dollars(cents: int) -> str:
    """Return cents as people write money: -123456 is -$1,234.56."""
    return f"{'-' if cents < 0 else ''}${abs(cents) / 100:,.2f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """Return a table, "none" without rows; text in cells can neither break the table nor become markup."""
    rows = list(rows)
    if not rows:
        return dg.MetadataValue.md("none")
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def batch_metadata(sessions: sessionmaker[Session], report: BatchReport) -> dict[str, dg.MetadataValue[Any]]:
    """Return how a batch stands, with its transactions: those that did not go through first."""
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
            )
            .where(HuntingtonTransaction.batch_id == report.batch_id)
            .order_by(HuntingtonTransaction.status.in_(("submitted", "completed")), HuntingtonTransaction.id)
            .limit(ROWS_SHOWN)
        ).all()
    total = sum(report.counts.values())
    return {
        "batch": dg.MetadataValue.int(report.batch_id),
        "status": dg.MetadataValue.text(report.status),
        "all runs of this batch": dg.MetadataValue.url(batch_link(report.batch_id).path),
        "the day's batches": dg.MetadataValue.asset(dg.AssetKey("huntington_transfers")),
        "by status": markdown_table(
            ["status", "transactions", "amount"],
            [(status, count, dollars(report.cents[status])) for status, count in sorted(report.counts.items())],
        ),
        f"transactions (first {len(rows)} of {total})": markdown_table(
            ["transaction", "method", "payee", "account", "amount", "status", "reason", "bank transfer"],
            [
                (
                    row.id,
                    row.method,
                    row.payee_name,
                    f"…{row.account_number_last4[-4:]}",
                    dollars(row.amount_cents),
                    row.status,
                    row.failure_reason or "",
                    row.bank_transfer_id or "",
                )
                for row in rows
            ],
        ),
    } | ({"held by run": dg.MetadataValue.dagster_run(report.held_by)} if report.held_by else {})


def heal_metadata(report: HealReport) -> dict[str, dg.MetadataValue[Any]]:
    """Return what a healing came to."""
    changes = report.findings.changes + report.feed.changes
    return {
        "asked about": dg.MetadataValue.int(report.findings.asked),
        "read from the feed": dg.MetadataValue.int(report.feed.transfers),
        "batches of dead workers queued again": _numbers(report.abandoned),
        "transactions unknown to the bank, pending again": _numbers(report.findings.put_back),
        "batches queued again": _numbers(report.findings.requeued),
        "batches finished": markdown_table(
            ["batch", "status"],
            [(batch_link(batch_id), status) for batch_id, status in sorted(report.finished.items())],
        ),
        f"changes (first {min(len(changes), ROWS_SHOWN)} of {len(changes)})": markdown_table(
            ["transaction", "batch", "was", "is", "amount", "bank transfer"],
            [
                (
                    one.transaction_id,
                    batch_link(one.batch_id),
                    one.before,
                    one.after,
                    dollars(one.transfer.amount_cents),
                    one.transfer.id,
                )
                for one in changes[:ROWS_SHOWN]
            ],
        ),
    }


def balance_metadata(sheet: BalanceSheet, *, where: str, size: int) -> dict[str, dg.MetadataValue[Any]]:
    """Return what a balance check saw, and where its file of `size` bytes is."""
    return {
        "accounts": dg.MetadataValue.int(sheet.accounts),
        "below their minimum": dg.MetadataValue.int(sheet.below_minimum),
        "balance of all": dg.MetadataValue.text(dollars(sheet.balance_cents)),
        "minimum of all": dg.MetadataValue.text(dollars(sheet.minimum_balance_cents)),
        "shortfall of all": dg.MetadataValue.text(dollars(sheet.shortfall_cents)),
        "alerts opened": dg.MetadataValue.int(sheet.alerts.opened),
        "alerts resolved": dg.MetadataValue.int(sheet.alerts.resolved),
        "alerts with new figures": dg.MetadataValue.int(sheet.alerts.changed),
        "where": dg.MetadataValue.path(where),
        "bytes": dg.MetadataValue.int(size),
        f"furthest below their minimum (first {len(sheet.worst)} of {sheet.below_minimum})": markdown_table(
            ["case", "account", "balance", "minimum", "shortfall"],
            [
                (
                    row["case_number"],
                    row["account_id"],
                    dollars(row["balance_cents"]),
                    dollars(row["minimum_balance_cents"]),
                    dollars(row["shortfall_cents"]),
                )
                for row in sheet.worst
            ],
        ),
        "histogram": picture(draw_histogram(sheet), "Accounts of active cases by what they hold"),
    }


def offenders_table(offenders: Violations) -> dg.MarkdownMetadataValue:
    """Return the first of those who offend against a rule of the books; money in dollars."""
    return markdown_table(
        [name.removesuffix("_cents").replace("_", " ") for name in offenders.columns],
        [
            [
                dollars(int(value)) if name.endswith("_cents") else value
                for name, value in zip(offenders.columns, row, strict=True)
            ]
            for row in offenders.rows
        ],
    )


def report_metadata(made: "MadeReport") -> dict[str, dg.MetadataValue[Any]]:
    """Return what a report is, where it is, and its first rows."""
    built = made.built
    return {
        "request": dg.MetadataValue.int(made.request.id),
        "about": dg.MetadataValue.text(built.report.about),
        "format": dg.MetadataValue.text(made.request.format),
        "rows": dg.MetadataValue.int(built.rows),
        "bytes": dg.MetadataValue.int(built.size),
        "sha256": dg.MetadataValue.text(built.sha256),
        "seconds waited": dg.MetadataValue.float(round(made.waited_seconds, 1)),
        "where": dg.MetadataValue.path(made.where),
        "totals": markdown_table(
            ["total", "value"], [(total.title, format_value(total.shape, total.value)) for total in built.report.totals]
        ),
        f"preview (first {len(built.preview)} of {built.rows})": markdown_table(
            [column.title for column in built.report.columns], built.preview
        ),
    }


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """Return a picture that lies in the metadata itself."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{b64encode(png).decode()})")


def _numbers(ids: Sequence[int]) -> dg.TextMetadataValue:
    shown = ", ".join(str(one) for one in ids[:ROWS_SHOWN])
    return dg.MetadataValue.text(
        f"{shown} and {len(ids) - ROWS_SHOWN} more" if len(ids) > ROWS_SHOWN else shown or "none"
    )


def _cell(value: object) -> str:
    if isinstance(value, Link):
        return f"[{_cell(value.text)}]({value.path})"
    text = str(value)
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"&#{ord(character)};")
    return " ".join(text.split())


Metadata = dict[str, dg.MetadataValue[Any]]
BARS = "·▁▂▃▄▅▆▇█"


def day_metadata(day: TransferDay, month: Sequence[DayOfMoney]) -> Metadata:
    """Return a day's batches, each with the run that had it last, and the thirty days up to it, drawn."""
    return {
        "day": dg.MetadataValue.text(format_date(day.day)),
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
        "day": dg.MetadataValue.text(format_date(day)),
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
        "week": dg.MetadataValue.text(f"from {format_date(week.first)}"),
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


def format_date(day: date) -> str:
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


def show_progress(context: dg.OpExecutionContext, *, done: int, total: int) -> None:
    """Show that `done` of `total` steps of this run are behind it."""
    context.instance.add_run_tags(context.run_id, {PROGRESS_TAG: f"{done} of {total}"})
