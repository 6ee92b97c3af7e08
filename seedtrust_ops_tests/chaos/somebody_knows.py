"""The judgment that a named person knows of everything that somebody must act on: by an open alert or by an email.

An email counts if its recipient had an active account when it was queued, or is one of the addresses on call, and if it
did not fail. What must be known is read from the bank and the platform's tables, and from none of the product's
predicates: a watcher that shares those would miss what they miss.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops_tests.chaos.evidence import Evidence, Transaction
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

EMAILS = """
    select n.kind, n.dedupe_key, n.variables
      from ops.notifications n join witness.emails w on w.notification_id = n.id
     where n.status <> 'failed' and (w.is_to_active_user or n.recipient_id is null)
"""
ALERTS = "select rule, subject, detail from ops.alerts where resolved_at is null"
LONGEST_SETTLEMENT = timedelta(days=8)
"""Longer than three banking days ever take, with weekends and holidays."""
OVERDUE_RULE = "settlement_overdue"
FAILED_BEFORE_US = "timeout"
"""How the failure reasons begin that the legacy worker has left."""


@dataclass(frozen=True)
class Knowledge:
    """What people were notified of: emails (kind, dedupe key, variables) and open alerts (rule, subject, detail)."""

    emails: list[tuple[str, str, dict[str, Any]]]
    alerts: list[tuple[str, str, str]]

    def has_email(self, key: str) -> bool:
        """Whether somebody was emailed under a dedupe key that begins so."""
        return any(dedupe_key.startswith(key) for _, dedupe_key, _ in self.emails)

    def has_failure_email(self, transaction_id: int) -> bool:
        """Whether somebody was emailed a list of failed payments that has this one.

        Not by its request: another payment of the same request may have failed before, and people assign requests.
        """
        return any(
            row["transaction"] == str(transaction_id)
            for kind, _, variables in self.emails
            if kind == "transfer-failed"
            for row in variables["rows"]
        )

    def has_alert(self, rule: str | None, subject: str) -> bool:
        """Whether an alert of the rule (None: of any) is open about the subject, alone or listed with others."""
        return any(
            rule in (None, known) and (about == subject or (about.endswith("others") and subject in detail))
            for known, about, detail in self.alerts
        )

    def is_without_recipient(self, kind: str, transaction_id: int | None = None) -> bool:
        """Whether people on call were alerted that emails of this kind have no recipient, and named the transaction."""
        about_kind = [detail for _, about, detail in self.alerts if about == f"{kind} emails without a recipient"]
        named = rf"\b{transaction_id or ''}\b|and \d+ more\)"
        return any(re.search(named, detail) for detail in about_kind)


def check_somebody_knows(sessions: Sessions, evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation for everything that somebody must act on and nobody was notified of.

    Auto-heal must have run, and the health rules must have been evaluated, since anything last changed.
    """
    with sessions() as session:
        knowledge, now = _read(session)
    for one in evidence.transactions.values():
        yield from _check_transaction(evidence, knowledge, one, now)
    for transaction_id in sorted(evidence.human.insisted):
        is_emailed = knowledge.has_email(f"transfer-settled:{transaction_id}:")
        if not (is_emailed or knowledge.is_without_recipient("transfer-settled")):
            yield _unknown(f"A person settled transaction {transaction_id} against the bank, and no admin was emailed.")
    for batch in evidence.batches:
        statuses = {one.status for one in evidence.transactions.values() if one.batch_id == batch.id}
        is_held = batch.status == "held" and statuses & {"pending", "processing"}
        if is_held and not knowledge.has_alert("batch_held", f"batch {batch.id}"):
            yield _unknown(f"Batch {batch.id} is held, and no alert says so.")


def _read(session: Session) -> tuple[Knowledge, datetime]:
    knowledge = Knowledge(
        [(row.kind, row.dedupe_key, row.variables) for row in session.execute(text(EMAILS))],
        [(row.rule, row.subject, row.detail) for row in session.execute(text(ALERTS))],
    )
    return knowledge, session.execute(text("select clock_timestamp()")).scalar_one()


def _check_transaction(
    evidence: Evidence, knowledge: Knowledge, one: Transaction, now: datetime
) -> Iterator[Violation]:
    if evidence.human.is_written_by_hand(one.id, one.status) or one.id in evidence.human.settled:
        return
    requests = {one.request_id, evidence.request_of(one.id)}
    has_alert = any(
        knowledge.has_alert(None, subject)
        for subject in (f"transaction {one.id}", *(f"request {request}" for request in requests))
    )
    transfer = evidence.transfer_of(one)
    if one.status == "failed" and not (one.failure_reason or "").startswith(FAILED_BEFORE_US):
        is_emailed = knowledge.has_failure_email(one.id) or knowledge.has_email(f"transfer-rejected:{one.id}:")
        if not (is_emailed or has_alert or knowledge.is_without_recipient("transfer-failed", one.id)):
            yield _unknown(f"Transaction {one.id} failed ({one.failure_reason}), and nobody was notified.")
    is_emailed = knowledge.has_email(f"transfer-returned:{one.id}:")
    if one.status == "returned" and not (
        is_emailed or has_alert or knowledge.is_without_recipient("transfer-returned", one.id)
    ):
        yield _unknown(f"Transaction {one.id} was returned ({one.failure_reason}), and nobody was notified.")
    if one.status == "returned" and transfer is not None and transfer["status"] != "returned" and not has_alert:
        yield _unknown(f"The bank contradicted itself about transaction {one.id}, and no alert says so.")
    if one.status == "submitted" and transfer is not None and transfer["status"] == "accepted":
        age = now - datetime.fromisoformat(transfer["created_at"])
        if age > LONGEST_SETTLEMENT and not knowledge.has_alert(OVERDUE_RULE, f"batch {one.batch_id}"):
            yield _unknown(f"Transaction {one.id} was accepted {age.days} days ago, and no alert says so.")


def _unknown(message: str) -> Violation:
    return Violation(ViolationKind.NOBODY_KNOWS, message)
