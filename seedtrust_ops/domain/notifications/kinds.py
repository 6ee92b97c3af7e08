"""The kinds of letters: who gets one, its subject line, and the variables that whoever writes one must give.

The templates beside it are named after the kind. `recipient_name` and `attachment_name` are added at delivery: the
user's full name (empty for an address that is no user's) and the name of the attached file, if there is one.
Money is integer cents, a moment is ISO 8601 with its offset, a day is YYYY-MM-DD: what PostgreSQL's
`jsonb_build_object` makes of bigint, timestamptz and date.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of letter; `variables` and `optional` say what each variable is."""

    name: str
    told: str
    subject: str
    variables: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Variables that make a letter of a kind, for previews and tests."""

    kind: str
    variables: Mapping[str, Any]
    attachment_name: str | None = None


ALERT = Kind(
    name="alert",
    told="The addresses in ALERT_EMAILS, when trouble is found; one letter may tell of several (the daily digest).",
    subject=(
        "{% if alerts | length == 1 %}"
        "{{ alerts[0].severity }}: {{ alerts[0].rule | words }}, {{ alerts[0].subject }}"
        "{% else %}{{ alerts | length }} alerts, {{ alerts[0].rule | words }} first{% endif %}"
    ),
    variables={
        "alerts": "a list, worst first, of objects with rule, subject, severity, opened_at (a moment) and detail; "
        "one with resolved_at (a moment, not null) is told as over",
    },
)
REPORT = Kind(
    name="report",
    told="Who asked for a report, when it is ready: with the file attached, or with a link to it.",
    subject="Your report is ready: {{ report_title }}",
    variables={
        "report_title": "what the report is called among people, such as 'Case ledger'",
        "rows": "how many rows it has",
        "requested_at": "when it was asked for, a moment",
        "link": "where it can be fetched, or null where the letter has the attachment",
        "link_expires_at": "until when, a moment, or null where the letter has the attachment",
    },
    optional={"about": "what it is about, such as 'Case ST-1042' or 'January 1 to March 31, 2026'"},
)
REPORT_FAILED = Kind(
    name="report-failed",
    told="Who asked for a report that could not be made.",
    subject="Your report could not be made: {{ report_title }}",
    variables={
        "report_title": "what the report is called among people, such as 'Case ledger'",
        "request_id": "the number of the report request",
        "requested_at": "when it was asked for, a moment",
        "reason": "one or more sentences that say why, for people",
    },
)
TRANSFER_RETURNED = Kind(
    name="transfer-returned",
    told="The case's escrow specialist, when the bank returns a payment.",
    subject="Payment returned by the bank: case {{ case_number }}",
    variables={
        "case_number": "the case's",
        "disbursement_request_id": "the number of the request that is open again",
        "transaction_id": "the number of the returned transaction",
        "amount_cents": "cents that came back",
        "payee_name": "who was to be paid",
        "return_code": "the bank's R-code, such as R03",
    },
)
CASE_CLOSE = Kind(
    name="case-close",
    told="The case's escrow specialist on the day it is to be closed, or once afterwards if that day was missed.",
    subject=(
        "{% if late %}Closing is overdue: case {{ case_number }}, due {{ close_on | day }}"
        "{% else %}Closes today: case {{ case_number }}{% endif %}"
    ),
    variables={
        "case_number": "the case's",
        "close_on": "the day that it is to be closed on",
        "late": "true where that day has passed",
    },
    optional={
        "balance_cents": "cents on its account",
        "open_requests": "how many disbursement requests of it are pending or approved and not paid",
    },
)
BALANCE_REMINDER = Kind(
    name="balance-reminder",
    told="Case managers and active admins: one letter a person, listing all their cases below the minimum.",
    subject=(
        "{{ cases | length + (cases_left_out | default(0)) }} "
        "{{ 'account is' if cases | length + (cases_left_out | default(0)) == 1 else 'accounts are' }} "
        "below the minimum balance"
    ),
    variables={
        "as_of": "the day that the balances are of",
        "cases": "a list, largest shortfall first, of objects with case_number, balance_cents, "
        "minimum_balance_cents and shortfall_cents",
    },
    optional={"cases_left_out": "how many more cases there are than the letter lists"},
)
DR_APPROVED = Kind(
    name="dr-approved",
    told="The case's intended parents, their representatives and its case manager, when a request is approved.",
    subject="Disbursement request {{ disbursement_request_id }} was approved: case {{ case_number }}",
    variables={
        "case_number": "the case's",
        "disbursement_request_id": "the request's number",
        "amount_cents": "cents that it is for",
        "category": "the request's",
        "payee_name": "the full name of who is paid",
        "approved_at": "when it was approved, a moment",
    },
    optional={"description": "the request's own words, may be empty"},
)

KINDS: Mapping[str, Kind] = {
    # The order in which letters go out: no alert waits behind a hundred thousand approvals.
    kind.name: kind
    for kind in (ALERT, REPORT, REPORT_FAILED, TRANSFER_RETURNED, CASE_CLOSE, BALANCE_REMINDER, DR_APPROVED)
}

_ALERT = {
    "rule": "batch_stuck",
    "subject": "batch 118",
    "severity": "CRITICAL",
    "opened_at": "2026-03-03T14:05:00+00:00",
    "detail": "Batch 118 has been processing for 42 minutes and no worker holds it.",
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
            "reason": "There is no case with the number 99999. Check the number and ask for the report again.",
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
    "alert": Example(ALERT.name, {"alerts": [_ALERT]}),
    "alert-digest": Example(
        ALERT.name,
        {
            "alerts": [
                {
                    "rule": "drs_overdue",
                    "subject": "12 requests",
                    "severity": "MEDIUM",
                    "opened_at": "2026-03-02T09:00:00Z",
                    "detail": "12 requests were due for approval over a day ago.",
                },
                {**_ALERT, "severity": "LOW", "resolved_at": "2026-03-03T14:40:00Z"},
            ]
        },
    ),
}
