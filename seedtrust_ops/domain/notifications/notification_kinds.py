"""The kinds of letters: who gets one, its subject line, and the variables that whoever writes one must give.

The templates beside it are named after the kind. `recipient_name` and `attachment_name` are added at delivery: the
user's full name (empty for an address that is no user's) and the name of the attached file, if there is one.
Money is integer cents, a moment is ISO 8601 with its offset, a day is YYYY-MM-DD: what PostgreSQL's
`jsonb_build_object` makes of bigint, timestamptz and date.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """One kind of letter; `variables` and `optional` say what each variable is."""

    name: str
    told: str
    subject: str
    variables: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


_ALERT = {
    "rule": "the alert's rule",
    "subject": "what is in trouble",
    "severity": "CRITICAL, HIGH, MEDIUM or LOW",
    "opened_at": "since when, a moment",
    "detail": "a sentence or two that say what is wrong and what to do",
}
_ALERTS = "a list, worst first, of objects with rule, subject, severity, opened_at (a moment) and detail"
ALERT_OPENED = Kind(
    name="alert-opened",
    told="The addresses in ALERT_EMAILS, when a CRITICAL or HIGH alert is opened or an alert becomes one.",
    subject="{{ severity }}: {{ rule | words }}, {{ subject }}",
    variables=_ALERT,
    optional={"has_risen": "true where it was told before and has become worse"},
)
ALERT_RESOLVED = Kind(
    name="alert-resolved",
    told="The addresses in ALERT_EMAILS, when a CRITICAL or HIGH alert is over.",
    subject="Over: {{ rule | words }}, {{ subject }}",
    variables=_ALERT | {"resolved_at": "since when it is over, a moment"},
)
ALERT_DIGEST = Kind(
    name="alert-digest",
    told="The addresses in ALERT_EMAILS, once a day where there is any MEDIUM or LOW alert to tell of.",
    subject=(
        "Alerts of {{ as_of | day }}: {{ opened | length }} new, {{ still_open | length }} still open, "
        "{{ resolved | length }} over"
    ),
    variables={
        "as_of": "the day of the digest",
        "opened": _ALERTS,
        "still_open": _ALERTS,
        "resolved": f"{_ALERTS}, and resolved_at (a moment)",
        "left_out": "how many more there are than the letter lists",
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

ALERT_KINDS = (ALERT_OPENED, ALERT_RESOLVED, ALERT_DIGEST)
"""Letters about the system itself, which are tried again sooner and for longer than those to customers."""
KINDS: Mapping[str, Kind] = {
    # The order in which letters go out: no alert waits behind a hundred thousand approvals.
    kind.name: kind
    for kind in (
        *ALERT_KINDS,
        REPORT,
        REPORT_FAILED,
        TRANSFER_RETURNED,
        CASE_CLOSE,
        BALANCE_REMINDER,
        DR_APPROVED,
    )
}
