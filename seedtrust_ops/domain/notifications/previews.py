"""Example emails, one or more of every kind, for previews and for tests. All names and figures are invented."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedtrust_ops.domain.notifications.notification_kinds import (
    ALERT_DIGEST,
    ALERT_OPENED,
    ALERT_RESOLVED,
    BALANCE_REMINDER,
    CASE_CLOSE,
    DR_APPROVED,
    REPORT,
    REPORT_FAILED,
    TRANSFER_RETURNED,
)
from seedtrust_ops.domain.notifications.renderer import EmailRenderer, RenderedEmail
from seedtrust_ops.errors import SeedTrustError


class UnknownPreview(SeedTrustError):
    """No example has that name."""


@dataclass(frozen=True)
class Example:
    """Example variables for a kind of email."""

    kind: str
    variables: Mapping[str, Any]
    attachment_name: str | None = None


_ALERT = {
    "rule": "batch_stuck",
    "subject": "batch 118",
    "severity": "CRITICAL",
    "opened_at": "2026-03-03T14:05:00+00:00",
    "detail": "Batch 118 has been processing for 42 minutes and no worker holds a lease on it.",
}
_REPORT = {"report_title": "Case ledger", "about": "Case ST-1042", "rows": 1284, "requested_at": "2026-03-03T15:00:00Z"}

EXAMPLES: Mapping[str, Example] = {
    "dr-approved": Example(
        DR_APPROVED.name,
        {
            "case_number": "ST-1042",
            "disbursement_request_id": 5518,
            "amount_cents": 245_000,
            "category": "monthly allowance",
            "payee_name": "Dana Whitfield",
            "approved_at": "2026-03-03T11:00:00+00:00",
            "description": "Allowance for March, as agreed in section 4",
        },
    ),
    "case-close": Example(
        CASE_CLOSE.name,
        {
            "case_number": "ST-1042",
            "close_on": "2026-03-03",
            "late": False,
            "balance_cents": 128_450,
            "open_requests": 2,
        },
    ),
    "case-close-late": Example(CASE_CLOSE.name, {"case_number": "ST-1042", "close_on": "2026-02-27", "late": True}),
    "balance-reminder": Example(
        BALANCE_REMINDER.name,
        {
            "as_of": "2026-03-03",
            "cases": [
                {
                    "case_number": f"ST-{1042 + number}",
                    "balance_cents": 1_000_000 - 45_050 * number,
                    "minimum_balance_cents": 1_500_000,
                    "shortfall_cents": 500_000 + 45_050 * number,
                }
                for number in (5, 3, 1)
            ],
            "cases_left_out": 4,
        },
    ),
    "report": Example(REPORT.name, {**_REPORT, "link": None, "link_expires_at": None}, "case-ledger-ST-1042.xlsx"),
    "report-link": Example(
        REPORT.name,
        {
            **_REPORT,
            "link": "https://reports.example/case-ledger-ST-1042.xlsx?signature=0a1b2c",
            "link_expires_at": "2026-03-10T15:00:12Z",
        },
    ),
    "report-failed": Example(
        REPORT_FAILED.name,
        {
            "report_title": "Case ledger",
            "request_id": 77,
            "requested_at": "2026-03-03T15:00:00Z",
            "reason": "There is no case with the number 99999. Check the number and request the report again.",
        },
    ),
    "transfer-returned": Example(
        TRANSFER_RETURNED.name,
        {
            "case_number": "ST-1042",
            "disbursement_request_id": 5518,
            "transaction_id": 90_211,
            "amount_cents": 245_000,
            "payee_name": "Dana Whitfield",
            "return_code": "R03",
        },
    ),
    "alert-opened": Example(ALERT_OPENED.name, _ALERT),
    "alert-risen": Example(ALERT_OPENED.name, {**_ALERT, "has_risen": True}),
    "alert-resolved": Example(ALERT_RESOLVED.name, {**_ALERT, "resolved_at": "2026-03-03T14:40:00Z"}),
    "alert-digest": Example(
        ALERT_DIGEST.name,
        {
            "as_of": "2026-03-03",
            "opened": [
                {
                    "rule": "error_spike",
                    "subject": "job aws_status_check",
                    "severity": "MEDIUM",
                    "opened_at": "2026-03-02T19:10:00Z",
                    "detail": "The last 2 runs of aws_status_check failed. The error is in the Dagster UI.",
                }
            ],
            "still_open": [],
            "resolved": [
                {
                    "rule": "expired_runs",
                    "subject": "job off_site_tracking",
                    "severity": "LOW",
                    "opened_at": "2026-03-02T09:00:00Z",
                    "detail": "The last 3 runs of off_site_tracking expired in the queue.",
                    "resolved_at": "2026-03-02T10:30:00Z",
                }
            ],
            "left_out": 2,
        },
    ),
}


def render_preview(name: str, renderer: EmailRenderer) -> RenderedEmail:
    """Return the example email with this name; raises `UnknownPreview`, which lists the valid names."""
    example = EXAMPLES.get(name)
    if example is None:
        raise UnknownPreview(f"There is no email preview {name!r}. Choose one of: {', '.join(EXAMPLES)}.")
    return renderer.render(
        example.kind,
        example.variables,
        recipient_name="Maria Alvarez",
        attachment_name=example.attachment_name,
    )
