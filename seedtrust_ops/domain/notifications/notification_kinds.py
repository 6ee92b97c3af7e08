"""The kinds of emails that this project has had from the start, each declared once with its example.

Their templates are in `templates/`, named after the kind. What a kind is, and how one is declared elsewhere, is in
`kind_registry`. All names and figures in the examples are invented.
"""

from datetime import timedelta

from seedtrust_ops.domain.notifications.kind_registry import (
    MAX_NAME_CHARS,
    MAX_SENTENCE_CHARS,
    Column,
    NotificationKind,
    TableEmailKind,
    Urgency,
)
from seedtrust_ops.formatting import MAX_TEXT_CHARS

_ALERT = {
    "rule": "the alert's rule",
    "subject": "what the alert is about",
    "severity": "CRITICAL, HIGH, MEDIUM or LOW",
    "opened_at": "when it was opened, a time",
    "detail": "one or two sentences: what is wrong and what to do",
}
_ALERT_EXAMPLE = {
    "rule": "batch_stuck",
    "subject": "batch 118",
    "severity": "CRITICAL",
    "opened_at": "2026-03-03T14:05:00+00:00",
    "detail": "Batch 118 has been processing for 42 minutes and no worker holds a lease on it.",
}
_ALERTS = "a list, worst first, of objects with rule, subject, severity, opened_at (a time) and detail"
ALERT_OPENED = NotificationKind(
    name="alert-opened",
    recipients="The addresses in ALERT_EMAILS, when a CRITICAL or HIGH alert opens, occurs again, or rises to one.",
    subject=(
        "{{ severity }}: {{ rule | humanize }}, {{ subject }}{{ ', again' if has_recurred | default(false) else '' }}"
    ),
    variables=_ALERT,
    optional={
        "has_risen": "true if people were notified before and the severity has risen",
        "has_recurred": "true if people were notified before and it has occurred again",
        "occurrences": "how many times it has occurred so far",
    },
    example=_ALERT_EXAMPLE,
    other_examples={
        "alert-risen": {**_ALERT_EXAMPLE, "has_risen": True},
        "alert-recurred": {**_ALERT_EXAMPLE, "has_recurred": True, "occurrences": 3},
    },
    urgency=Urgency.ALERT,
    useful_for=None,
)
ALERT_RESOLVED = NotificationKind(
    name="alert-resolved",
    recipients="The addresses in ALERT_EMAILS, when a CRITICAL or HIGH alert is resolved.",
    subject="Resolved: {{ rule | humanize }}, {{ subject }}",
    variables=_ALERT | {"resolved_at": "when it was resolved, a time"},
    example={**_ALERT_EXAMPLE, "resolved_at": "2026-03-03T14:40:00Z"},
    urgency=Urgency.ALERT,
    useful_for=timedelta(days=3),
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
    example={
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
    urgency=Urgency.ALERT,
    useful_for=timedelta(days=3),
)
_REPORT_EXAMPLE = {
    "report_title": "Case ledger",
    "about": "Case ST-1042",
    "rows": 1284,
    "requested_at": "2026-03-03T15:00:00Z",
}
REPORT = NotificationKind(
    name="report",
    recipients="The user who requested a report, when it is ready: with the file attached, or with a link to it.",
    subject="Your report is ready: {{ report_title }}",
    variables={
        "report_title": "the report's title, such as 'Case ledger'",
        "rows": "the number of rows",
        "requested_at": "when it was requested, a time",
        "stored_file": "the key and the filename of the stored file, or null if the file is attached",
    },
    optional={
        "about": "what the report covers, such as 'Case ST-1042' or 'January 1 to March 31, 2026'",
        "link": "the download link of the stored file; it is signed on delivery and not stored",
        "link_expires_at": "when the link expires, a time, or null if it expires within hours",
    },
    typed={"report_title": MAX_NAME_CHARS, "about": MAX_NAME_CHARS},
    example={
        **_REPORT_EXAMPLE,
        "stored_file": None,
        "attachment_name": "case-ledger-ST-1042.xlsx",
    },
    other_examples={
        "report-link": {
            **_REPORT_EXAMPLE,
            "stored_file": {"key": "reports/case_ledger/77/0a1b2c/case-ledger-ST-1042.xlsx", "filename": "ledger.xlsx"},
            "link": "https://reports.example/case-ledger-ST-1042.xlsx?signature=0a1b2c",
            "link_expires_at": "2026-03-10T15:00:12Z",
        }
    },
    urgency=Urgency.PROMPT,
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
    typed={"report_title": MAX_NAME_CHARS, "reason": MAX_TEXT_CHARS},
    example={
        "report_title": "Case ledger",
        "request_id": 77,
        "requested_at": "2026-03-03T15:00:00Z",
        "reason": "There is no case with the number 99999. Check the number and request the report again.",
    },
    urgency=Urgency.PROMPT,
)
REPORTS_REFUSED = TableEmailKind(
    name="reports-refused",
    recipients="A user who requested so many reports that some were not accepted: one email per day.",
    subject="{{ count | pluralize('report request') }} not accepted",
    introduction=(
        "These report requests were not accepted, because too many of your reports were waiting already. "
        "Please request what you need again when the others have arrived."
    ),
    columns=(
        Column("request_id", "Request"),
        Column("report", "Report"),
        Column("requested_at", "Requested", format="date_time"),
    ),
    why="You are receiving this email because you requested these reports.",
    example=[
        {"request_id": "178", "report": "Case ledger", "requested_at": "2026-03-03T15:00:00Z"},
        {"request_id": "179", "report": "Disbursements", "requested_at": "2026-03-03T15:00:02Z"},
    ],
    urgency=Urgency.PROMPT,
    useful_for=timedelta(days=3),
)
_TRANSFER_RECIPIENTS = (
    "The case's escrow specialist; if there is none who is active, its case manager, then all active admins, then the "
    "addresses in ALERT_EMAILS"
)
TRANSFER_FAILED = TableEmailKind(
    name="transfer-failed",
    recipients=f"{_TRANSFER_RECIPIENTS}: one email per person and batch run, listing all payments that failed.",
    subject="{{ count | pluralize('payment') }} failed",
    introduction="{{ 'This payment was' if count == 1 else 'These payments were' }} not made, and no money has moved.",
    columns=(
        Column("case_number", "Case"),
        Column("request", "Request"),
        Column("transaction", "Transaction"),
        Column("payee_name", "Payee"),
        Column("amount_cents", "Amount", format="dollars"),
        Column("explanation", "What happened, and what to do", format="sentence"),
    ),
    why=(
        "You are receiving this email because you are responsible for these cases, or because nobody who is has an "
        "active account."
    ),
    example=[
        {
            "case_number": "ST-1042",
            "request": "5518",
            "transaction": "9071",
            "payee_name": "Dana Whitfield",
            "amount_cents": 245_000,
            "explanation": "The bank refused the account. Correct the payee's bank details, then put the payment into "
            "a new batch.",
        },
        {
            "case_number": "ST-1057",
            "request": "5523",
            "transaction": "9076",
            "payee_name": "Marisol Vega",
            "amount_cents": 80_000,
            "explanation": "Not sent: disbursement request 5523 is 'denied', not approved. Check the request. If it is "
            "still to be paid, put the payment into a new batch.",
        },
    ],
    urgency=Urgency.PROMPT,
    useful_for=timedelta(days=30),
    must_reach=True,
)
TRANSFER_REJECTED = NotificationKind(
    name="transfer-rejected",
    recipients=f"{_TRANSFER_RECIPIENTS}, when the bank rejects a payment after its batch was sent.",
    subject="Payment rejected by the bank: case {{ case_number }}",
    variables={
        "case_number": "the case's number",
        "disbursement_request_id": "the number of the disbursement request that is still unpaid, or 'none'",
        "transaction_id": "the number of the rejected transaction",
        "amount_cents": "cents that were not paid",
        "payee_name": "the payee's full name",
        "explanation": "sentences that say why, and what to do",
    },
    typed={
        "case_number": MAX_NAME_CHARS,
        "payee_name": MAX_NAME_CHARS,
        "explanation": MAX_SENTENCE_CHARS,
    },
    example={
        "case_number": "ST-1042",
        "disbursement_request_id": 5518,
        "transaction_id": 90_211,
        "amount_cents": 245_000,
        "payee_name": "Dana Whitfield",
        "explanation": "The bank rejected it: account closed. Correct the payee's bank details, then put the payment "
        "into a new batch.",
    },
    urgency=Urgency.PROMPT,
    useful_for=timedelta(days=30),
    must_reach=True,
)
TRANSFER_RETURNED = NotificationKind(
    name="transfer-returned",
    recipients=f"{_TRANSFER_RECIPIENTS}, when the bank returns a payment.",
    subject="Payment returned by the bank: case {{ case_number }}",
    variables={
        "case_number": "the case's number",
        "disbursement_request_id": "the number of the disbursement request that is unpaid again, or 'none'",
        "transaction_id": "the number of the returned transaction",
        "amount_cents": "cents that were returned",
        "payee_name": "the payee's full name",
        "return_code": "the bank's R-code, such as R03",
    },
    typed={"case_number": MAX_NAME_CHARS, "payee_name": MAX_NAME_CHARS, "return_code": MAX_NAME_CHARS},
    example={
        "case_number": "ST-1042",
        "disbursement_request_id": 5518,
        "transaction_id": 90_211,
        "amount_cents": 245_000,
        "payee_name": "Dana Whitfield",
        "return_code": "R03",
    },
    urgency=Urgency.PROMPT,
    useful_for=timedelta(days=30),
    must_reach=True,
)
TRANSFER_SETTLED = NotificationKind(
    name="transfer-settled",
    recipients="All active admins, when a person settles a transfer against what the bank says.",
    subject="Transfer settled against the bank: transaction {{ transaction_id }}",
    variables={
        "transaction_id": "the number of the transaction",
        "settled_as": "completed, failed or returned",
        "settled_by": "who settled it",
        "reason": "the reason that this person gave",
        "bank_says": "the bank's status: accepted, completed, rejected, returned, or unknown",
    },
    typed={
        "settled_as": MAX_NAME_CHARS,
        "settled_by": MAX_NAME_CHARS,
        "reason": MAX_TEXT_CHARS,
        "bank_says": MAX_NAME_CHARS,
    },
    example={
        "transaction_id": 9007,
        "settled_as": "failed",
        "settled_by": "ana@seedtrust.example",
        "reason": "Huntington confirmed on the phone that no money left",
        "bank_says": "accepted",
    },
    useful_for=timedelta(days=30),
    must_reach=True,
)
CASE_CLOSE = NotificationKind(
    name="case-close",
    recipients="The case's escrow specialist on its close date, or once later if that day was missed.",
    subject=(
        "{% if late %}Closing is overdue: case {{ case_number }}, due {{ close_on | day }}"
        "{% else %}Closes on {{ close_on | day }}: case {{ case_number }}{% endif %}"
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
    typed={"case_number": MAX_NAME_CHARS},
    example={
        "case_number": "ST-1042",
        "close_on": "2026-03-03",
        "late": False,
        "balance_cents": 128_450,
        "open_requests": 2,
    },
    other_examples={"case-close-late": {"case_number": "ST-1042", "close_on": "2026-02-27", "late": True}},
    useful_for=timedelta(days=7),
    must_reach=True,
)
BALANCE_REMINDER = TableEmailKind(
    name="balance-reminder",
    recipients="Case managers and active admins: one email per person, listing all their cases below the minimum.",
    subject="{{ count | pluralize('account is', 'accounts are') }} below the minimum balance",
    introduction=(
        "As of {{ as_of | day }}, {{ 'this account is' if count == 1 else 'these accounts are' }} below the agreed "
        "minimum balance. Please ask the intended parents for a deposit of at least the shortfall."
        "{% if rows_left_out %} The {{ rows | length }} largest shortfalls are listed.{% endif %}"
    ),
    columns=(
        Column("case_number", "Case"),
        Column("balance_cents", "Balance", format="dollars"),
        Column("minimum_balance_cents", "Minimum", format="dollars"),
        Column("shortfall_cents", "Shortfall", format="dollars"),
    ),
    why=(
        "You are receiving this email, at most every third day, because you manage these cases or are an administrator."
    ),
    example=[
        {
            "case_number": f"ST-{1042 + number}",
            "balance_cents": 1_000_000 - 45_050 * number,
            "minimum_balance_cents": 1_500_000,
            "shortfall_cents": 500_000 + 45_050 * number,
        }
        for number in (5, 3, 1)
    ],
    useful_for=timedelta(days=3),
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
    typed={
        "case_number": MAX_NAME_CHARS,
        "category": MAX_NAME_CHARS,
        "payee_name": MAX_NAME_CHARS,
        "description": MAX_TEXT_CHARS,
    },
    example={
        "case_number": "ST-1042",
        "disbursement_request_id": 5518,
        "amount_cents": 245_000,
        "category": "monthly allowance",
        "payee_name": "Dana Whitfield",
        "approved_at": "2026-03-03T11:00:00+00:00",
        "description": "Allowance for March, as agreed in section 4",
    },
    urgency=Urgency.BULK,
)

ALERT_KINDS = (ALERT_OPENED, ALERT_RESOLVED, ALERT_DIGEST)
