"""The kinds of emails: their recipients, their subject lines, and the variables that each needs.

The templates are in `templates/`, named after the kind. `recipient_name` and `attachment_name` are added on delivery:
the user's full name (empty if the address is not a user's) and the name of the attached file, if there is one.
Money is integer cents, a time is ISO 8601 with its offset, a day is YYYY-MM-DD: what PostgreSQL's
`jsonb_build_object` makes of bigint, timestamptz and date.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NotificationKind:
    """One kind of email; `variables` and `optional` describe each variable."""

    name: str
    recipients: str
    subject: str
    variables: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


_ALERT = {
    "rule": "the alert's rule",
    "subject": "what the alert is about",
    "severity": "CRITICAL, HIGH, MEDIUM or LOW",
    "opened_at": "when it was opened, a time",
    "detail": "one or two sentences: what is wrong and what to do",
}
_ALERTS = "a list, worst first, of objects with rule, subject, severity, opened_at (a time) and detail"
ALERT_OPENED = NotificationKind(
    name="alert-opened",
    recipients="The addresses in ALERT_EMAILS, when a CRITICAL or HIGH alert opens or an alert rises to one.",
    subject="{{ severity }}: {{ rule | humanize }}, {{ subject }}",
    variables=_ALERT,
    optional={"has_risen": "true if people were notified before and the severity has risen"},
)
ALERT_RESOLVED = NotificationKind(
    name="alert-resolved",
    recipients="The addresses in ALERT_EMAILS, when a CRITICAL or HIGH alert is resolved.",
    subject="Resolved: {{ rule | humanize }}, {{ subject }}",
    variables=_ALERT | {"resolved_at": "when it was resolved, a time"},
)
ALERT_DIGEST = NotificationKind(
    name="alert-digest",
    recipients="The addresses in ALERT_EMAILS, once a day if there is any MEDIUM or LOW alert to report.",
    subject=(
        "Alerts for {{ as_of | day }}: {{ opened | length }} new, {{ still_open | length }} still open, "
        "{{ resolved | length }} resolved"
    ),
    variables={
        "as_of": "the day of the digest",
        "opened": _ALERTS,
        "still_open": _ALERTS,
        "resolved": f"{_ALERTS}, and resolved_at (a time)",
        "left_out": "how many more alerts there are than the email lists",
    },
)
REPORT = NotificationKind(
    name="report",
    recipients="The user who requested a report, when it is ready: with the file attached, or with a link to it.",
    subject="Your report is ready: {{ report_title }}",
    variables={
        "report_title": "the report's title, such as 'Case ledger'",
        "rows": "the number of rows",
        "requested_at": "when it was requested, a time",
        "link": "the download link, or null if the file is attached",
        "link_expires_at": "when the link expires, a time, or null if the file is attached",
    },
    optional={"about": "what the report covers, such as 'Case ST-1042' or 'January 1 to March 31, 2026'"},
)
REPORT_FAILED = NotificationKind(
    name="report-failed",
    recipients="The user who requested a report that could not be generated.",
    subject="Your report could not be generated: {{ report_title }}",
    variables={
        "report_title": "the report's title, such as 'Case ledger'",
        "request_id": "the number of the report request",
        "requested_at": "when it was requested, a time",
        "reason": "one or more sentences that say why",
    },
)
TRANSFER_RETURNED = NotificationKind(
    name="transfer-returned",
    recipients="The case's escrow specialist, when the bank returns a payment.",
    subject="Payment returned by the bank: case {{ case_number }}",
    variables={
        "case_number": "the case's number",
        "disbursement_request_id": "the number of the disbursement request that is unpaid again",
        "transaction_id": "the number of the returned transaction",
        "amount_cents": "cents that were returned",
        "payee_name": "the payee's full name",
        "return_code": "the bank's R-code, such as R03",
    },
)
CASE_CLOSE = NotificationKind(
    name="case-close",
    recipients="The case's escrow specialist on its close date, or once later if that day was missed.",
    subject=(
        "{% if late %}Closing is overdue: case {{ case_number }}, due {{ close_on | day }}"
        "{% else %}Closes today: case {{ case_number }}{% endif %}"
    ),
    variables={
        "case_number": "the case's number",
        "close_on": "the close date",
        "late": "true if the close date has passed",
    },
    optional={
        "balance_cents": "cents in the case's account",
        "open_requests": "how many of its disbursement requests are pending, or approved and not paid",
    },
)
BALANCE_REMINDER = NotificationKind(
    name="balance-reminder",
    recipients="Case managers and active admins: one email per person, listing all their cases below the minimum.",
    subject=(
        "{{ cases | length + (cases_left_out | default(0)) }} "
        "{{ 'account is' if cases | length + (cases_left_out | default(0)) == 1 else 'accounts are' }} "
        "below the minimum balance"
    ),
    variables={
        "as_of": "the date of the balances",
        "cases": "a list, largest shortfall first, of objects with case_number, balance_cents, "
        "minimum_balance_cents and shortfall_cents",
    },
    optional={"cases_left_out": "how many more cases there are than the email lists"},
)
DR_APPROVED = NotificationKind(
    name="dr-approved",
    recipients="The case's intended parents, their representatives and its case manager, when a request is approved.",
    subject="Disbursement request {{ disbursement_request_id }} was approved: case {{ case_number }}",
    variables={
        "case_number": "the case's number",
        "disbursement_request_id": "the number of the disbursement request",
        "amount_cents": "the amount in cents",
        "category": "the request's category",
        "payee_name": "the payee's full name",
        "approved_at": "when it was approved, a time",
    },
    optional={"description": "the request's description; may be empty"},
)

ALERT_KINDS = (ALERT_OPENED, ALERT_RESOLVED, ALERT_DIGEST)
"""Emails about the system itself; they are retried sooner and for longer than those to customers."""
KINDS: Mapping[str, NotificationKind] = {
    # The order is the sending order: no alert waits behind a hundred thousand approvals.
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
