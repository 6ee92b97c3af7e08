"""This project's own tables in schema `ops`, which the platform's applications do not use.

State for moving money safely, locks, the audit of what people did, the outboxes of email and events, alerts, report
claims, and shadow decisions.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, UniqueConstraint, false, func, text
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, OpsTable


class BatchLease(OpsTable):
    """The lease on a batch: who may write to it and until when. One row per batch, kept after the lease ends.

    `token` is null if nobody holds the lease. `generation` counts the claims so far; it distinguishes a batch that
    was queued again from one whose run was already requested.
    """

    __tablename__ = "batch_leases"

    batch_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str | None]
    holder: Mapped[str]
    generation: Mapped[int] = mapped_column(server_default="1")
    acquired_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class FundingCheck(OpsTable):
    """The newest check of a batch against its funding account (`domain/transfers/funding`); amounts in cents.

    `outcome` is covered, short, unreadable or refused. If covered, what is pending in the batch is reserved as long as
    the lease with `lease_token` lives. Otherwise the batch waits, `not_before` is when it is checked again, and
    `detail` says what is wrong with an account that could not be read or a transfer that was refused.
    `reserved_cents` is what was reserved for other transfers.
    """

    __tablename__ = "funding_checks"

    batch_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    funding_account_id: Mapped[str]
    lease_token: Mapped[str]
    outcome: Mapped[str]
    needed_cents: Mapped[int]
    reserved_cents: Mapped[int]
    available_cents: Mapped[int | None]
    detail: Mapped[str | None]
    checked_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    not_before: Mapped[datetime | None]


class TransferAttempt(OpsTable):
    """One event of an attempt to send a transfer: its start or its outcome.

    The table is append-only, enforced by a trigger. An attempt has a row with outcome `started`, committed before the
    request is sent, and later a row with its outcome (`finished_at` set). `attempt` counts the requests for one
    transaction from 1.
    """

    __tablename__ = "transfer_attempts"
    __table_args__ = (
        Index("transfer_attempts_by_transaction", "transaction_id", "id"),
        Index("transfer_attempts_by_finished_at", "finished_at", postgresql_where=text("bank_transfer_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    transaction_id: Mapped[int]
    idempotency_key: Mapped[str]
    attempt: Mapped[int] = mapped_column(INT)
    outcome: Mapped[str]
    bank_transfer_id: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    detail: Mapped[str | None]


class TransferEvidence(OpsTable):
    """What is known of one transfer at the bank, and the order as it was first sent.

    There is a row from the first attempt or bank id on. It stays as it is if somebody changes or deletes the
    transaction, so what is in flight never depends on what a person wrote there (`domain/transfers/evidence`).
    `bank_created_at` is when the bank accepted it, and `bank_amount_cents` what it moves there; both are null while the
    bank has said nothing, or said it before revision 0019. `unknown_to_bank_at` is when the bank did not know the key
    after the grace period, null once it is sent again; `missing_since` is since when lookups have not found a transfer
    that the bank had. `payee_name_normalized` is whether the bank got the name normalized (`payee_names`) or as it is
    stored, as before revision 0028. `settled_as` is what a person decided, and `settled_seen_at` the time of the bank's
    answer that this person saw, if any. Amounts in cents.
    """

    __tablename__ = "transfer_evidence"
    __table_args__ = (
        Index(
            "transfer_evidence_open",
            "transaction_id",
            postgresql_where=text(
                "(state = ANY (ARRAY['in_flight'::text, 'contradicted'::text])) OR (missing_since IS NOT NULL)"
            ),
        ),
        Index(
            "transfer_evidence_by_account",
            "account_id",
            postgresql_where=text("state = ANY (ARRAY['in_flight'::text, 'contradicted'::text])"),
        ),
        Index("transfer_evidence_by_request", "disbursement_request_id"),
        Index(
            "transfer_evidence_unsettled",
            "bank_created_at",
            postgresql_where=text("(bank_status = 'accepted'::text) AND (settled_as IS NULL)"),
        ),
    )

    transaction_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]
    disbursement_request_id: Mapped[int | None]
    account_id: Mapped[int | None]
    method: Mapped[str]
    amount_cents: Mapped[int]
    payee_name: Mapped[str]
    payee_name_normalized: Mapped[bool] = mapped_column(server_default=false())
    routing_number: Mapped[str]
    account_number_encrypted: Mapped[str]
    account_number_last4: Mapped[str]
    account_type: Mapped[str]
    bank_transfer_id: Mapped[str | None]
    bank_status: Mapped[str | None]
    bank_updated_at: Mapped[datetime | None]
    bank_created_at: Mapped[datetime | None]
    bank_amount_cents: Mapped[int | None]
    unknown_to_bank_at: Mapped[datetime | None]
    missing_since: Mapped[datetime | None]
    settled_as: Mapped[str | None]
    settled_seen_at: Mapped[datetime | None]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TransferFailure(OpsTable):
    """One failure or return of a transaction; a trigger inserts it with the status, no matter who changes that.

    `is_of_run` is whether the worker of the batch's claim number `generation` did it; otherwise it came later. Its
    request, amount (cents), payee and reason are those of that moment. `notified_at` is when emails about it were
    queued, null until then.
    """

    __tablename__ = "transfer_failures"
    __table_args__ = (Index("transfer_failures_to_notify", "id", postgresql_where=text("notified_at IS NULL")),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    transaction_id: Mapped[int]
    batch_id: Mapped[int]
    generation: Mapped[int]
    is_of_run: Mapped[bool]
    status: Mapped[str]
    disbursement_request_id: Mapped[int | None]
    amount_cents: Mapped[int]
    payee_name: Mapped[str]
    reason: Mapped[str | None]
    failed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    notified_at: Mapped[datetime | None]


class StatusBeforePayment(OpsTable):
    """The status of a disbursement request before it was marked paid, which a return restores."""

    __tablename__ = "statuses_before_payment"

    disbursement_request_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LegacyInquiry(OpsTable):
    """How often the bank did not know a failure of the legacy worker, and when it is asked about it again."""

    __tablename__ = "legacy_inquiries"

    transaction_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    inquiries: Mapped[int]
    next_inquiry_at: Mapped[datetime]


class LedgerCorrection(OpsTable):
    """A ledger entry without a transaction id; append-only.

    It corrects what was booked for a transaction, or books a transfer that a person explained (`bank_transfer_id`).
    """

    __tablename__ = "ledger_corrections"
    __table_args__ = (
        Index("ledger_corrections_by_transaction", "transaction_id"),
        Index(
            "ledger_corrections_by_bank_transfer",
            "bank_transfer_id",
            postgresql_where=text("bank_transfer_id IS NOT NULL"),
        ),
    )

    ledger_entry_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    transaction_id: Mapped[int | None]
    bank_transfer_id: Mapped[str | None]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UnknownTransfer(OpsTable):
    """A transfer that the bank reports and no transaction explains; rows are never deleted.

    `problem` says why nothing explains it. It is explained by a person (`explained_by`, `explanation`), perhaps as the
    payment of a request, or by a transaction that appeared later; `explained_at` is null until then, and again if the
    transfer changes in a way that the explanation does not cover. Times without `first_seen_at` and `explained_at` are
    the bank's; amounts in cents.
    """

    __tablename__ = "unknown_transfers"
    __table_args__ = (
        Index("unknown_transfers_unexplained", "bank_transfer_id", postgresql_where=text("explained_at IS NULL")),
        Index("unknown_transfers_by_reference", "reference"),
        Index(
            "unknown_transfers_by_request",
            "disbursement_request_id",
            postgresql_where=text("disbursement_request_id IS NOT NULL"),
        ),
    )

    bank_transfer_id: Mapped[str] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str]
    reference: Mapped[str]
    status: Mapped[str]
    method: Mapped[str]
    amount_cents: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    problem: Mapped[str]
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    transaction_id: Mapped[int | None]
    explained_at: Mapped[datetime | None]
    explained_by: Mapped[str | None]
    explanation: Mapped[str | None]
    disbursement_request_id: Mapped[int | None]
    account_id: Mapped[int | None]


class Cutover(OpsTable):
    """When a job took over from the legacy system; `seedtrust-ops migrate` records it."""

    __tablename__ = "cutovers"

    job: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class UnreadableTransferRow(OpsTable):
    """A transfer that the bank reports and that cannot be read or recorded, until it can be (`resolved_at`).

    `subject` names it, and its alert: by the bank's id, or else by its key, its reference, or a digest of what is
    wrong. `attempts` counts the inquiries since `first_seen_at`.
    """

    __tablename__ = "unreadable_transfers"
    __table_args__ = (
        Index("unreadable_transfers_open", "next_inquiry_at", postgresql_where=text("resolved_at IS NULL")),
    )

    subject: Mapped[str] = mapped_column(primary_key=True)
    bank_transfer_id: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    reference: Mapped[str | None]
    problem: Mapped[str]
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_inquiry_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(INT, server_default="0")
    resolved_at: Mapped[datetime | None]


class BankFeedCursor(OpsTable):
    """How far the bank's feed of changed transfers has been read; `name` is the bank."""

    __tablename__ = "bank_feed_cursors"

    name: Mapped[str] = mapped_column(primary_key=True)
    read_up_to: Mapped[datetime]
    last_read_at: Mapped[datetime]


class Switch(OpsTable):
    """A switch that is on while its row exists; `transfers_halted` stops all sending."""

    __tablename__ = "switches"

    name: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(server_default="no reason given")
    set_by: Mapped[str] = mapped_column(server_default="unknown")
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AuditEvent(OpsTable):
    """Something that a person did: halt, resume, acknowledge, resolve or a key rotation; the table is append-only.

    Only triggers write it (revision 0011). `actor` is the database login. `detail` has what the command said of itself:
    the login name on its machine (`os_user`) and whom the person claims to be (`as`).
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str] = mapped_column(server_default=text("session_user"))
    action: Mapped[str]
    subject: Mapped[str]
    reason: Mapped[str] = mapped_column(server_default="")
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class NamedLock(OpsTable):
    """A row to lock so that one run works at a time (`domain/locks.py`); rows are never changed."""

    __tablename__ = "locks"

    name: Mapped[str] = mapped_column(primary_key=True)


class OutboxRow:
    """The columns that both outboxes have, of emails and of events; `dedupe_key` prevents duplicates.

    A row is written in the transaction that causes it and sent afterwards by `domain/outbox`.

    While a row is queued, `next_attempt_at` is when it may be sent. A dispatcher that claims it moves that time
    forward, so that no other one sends it, and sets `claim_token`. `status` is queued, sent or failed. `last_error` is
    why the row was not sent yet, or why it failed.
    """

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    dedupe_key: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(INT, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempted_at: Mapped[datetime | None]
    claim_token: Mapped[str | None]
    last_error: Mapped[str | None]


class Notification(OutboxRow, OpsTable):
    """One email to one person."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index(
            "notifications_to_send", "kind", "next_attempt_at", "id", postgresql_where=text("status = 'queued'::text")
        ),
    )

    kind: Mapped[str]
    recipient_id: Mapped[int | None]
    recipient_email: Mapped[str]
    subject: Mapped[str]
    variables: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class NotificationAttachment(OpsTable):
    """The attachment of an email; it is deleted when the email is sent."""

    __tablename__ = "notification_attachments"

    notification_id: Mapped[int] = mapped_column(
        ForeignKey(Notification.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    filename: Mapped[str]
    media_type: Mapped[str]
    content: Mapped[bytes]


class OutgoingEvent(OutboxRow, OpsTable):
    """One event for PostHog or the internal API; `body` is what the destination's client builds its request from."""

    __tablename__ = "outgoing_events"
    __table_args__ = (
        Index(
            "outgoing_events_to_send",
            "destination",
            "next_attempt_at",
            "id",
            postgresql_where=text("status = 'queued'::text"),
        ),
        Index("outgoing_events_by_destination", "destination", "id"),
    )

    destination: Mapped[str]
    body: Mapped[dict[str, Any]]


class Alert(OpsTable):
    """A problem that people must know about; at most one unresolved row per rule and subject.

    `detail` is what was reported last. An acknowledgement of `acknowledged_by` ends at `acknowledged_until`, and when
    the severity rises above `acknowledged_severity`. `occurrences` counts how often something new was reported while it
    is open.
    `last_found_at` is when a health rule last found it; null if something else opened it, because rules resolve only
    what rules found.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "alerts_one_unresolved",
            "rule",
            "subject",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("alerts_resolved", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    rule: Mapped[str]
    subject: Mapped[str]
    severity: Mapped[str]
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    resolved_at: Mapped[datetime | None]
    detail: Mapped[str] = mapped_column(server_default="")
    last_found_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_until: Mapped[datetime | None]
    acknowledged_severity: Mapped[str | None]
    acknowledged_by: Mapped[str | None]
    occurrences: Mapped[int] = mapped_column(INT, server_default="1")


class AlertNotification(OpsTable):
    """Evidence that one channel delivered one notification about one alert; the table is append-only, by a trigger.

    What has no row was not delivered. `notification` says which one it was (`opened`, `resolved` and so on),
    `severity` and `occurrences` what it said of the alert.
    """

    __tablename__ = "alert_notifications"
    __table_args__ = (Index("alert_notifications_once", "alert_id", "channel", "notification", unique=True),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey(Alert.id))
    channel: Mapped[str]
    notification: Mapped[str]
    severity: Mapped[str]
    occurrences: Mapped[int] = mapped_column(INT, server_default="1")
    notified_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BalanceAlert(OpsTable):
    """An account below its minimum balance; at most one unresolved row per account."""

    __tablename__ = "balance_alerts"
    __table_args__ = (
        Index(
            "balance_alerts_one_unresolved",
            "account_id",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    account_id: Mapped[int]
    balance_cents: Mapped[int]
    minimum_balance_cents: Mapped[int]
    shortfall_cents: Mapped[int]
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    resolved_at: Mapped[datetime | None]


class ReportClaim(OpsTable):
    """The number of tries of an unfinished report request and the last worker's token; deleted when it is finished."""

    __tablename__ = "report_claims"

    request_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str]
    tries: Mapped[int] = mapped_column(INT)
    claimed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    not_before: Mapped[datetime | None]


class ShadowDecision(OpsTable):
    """One decision of a job in shadow mode about a subject, such as to approve request 12.

    `domain/shadow_mode/` writes them, and `seedtrust-ops shadow compare` reads them.

    A repeated decision stays one row: `times` counts it, and `last_seen_at` and `detail` are those of the newest.
    `detail` contains no personal data and no account number.
    """

    __tablename__ = "shadow_decisions"
    __table_args__ = (
        UniqueConstraint("job", "subject", "decision"),
        Index("shadow_decisions_by_time", "job", "last_seen_at"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job: Mapped[str]
    subject: Mapped[str]
    decision: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    times: Mapped[int] = mapped_column(INT, server_default="1")
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
