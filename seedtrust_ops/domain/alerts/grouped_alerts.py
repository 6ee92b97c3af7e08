"""Alerts of a rule that may have very many subjects at once: one alert each, or one that lists them all.

Callers pass all subjects that are open, after each change; it keeps no state of its own beside the alerts.
See docs/decisions/alerts.md.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding, open_alert, resolve_alerts
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.tables import Alert

MAX_SINGLE_ALERTS = 20
"""More open subjects than this become one alert that lists them (docs/rules.md, section 7)."""
MAX_LISTED = 100
"""The alert that lists many names this many of them and counts the rest."""


@dataclass(frozen=True)
class AlertGroup:
    """The rule, and the alert that lists many: its subject, what one of them is called, and what to do about them."""

    rule: str
    subject: str
    noun: str
    advice: str


def sync_grouped_alerts(
    session: Session, group: AlertGroup, findings: Sequence[Finding], *, new_subjects: Collection[str]
) -> None:
    """Make the open alerts of the group's rule match `findings`, which are all subjects that are open now.

    Up to MAX_SINGLE_ALERTS subjects have an alert each. If there are more, one alert lists all, and subjects that have
    no alert of their own yet get none. It stays until nothing is open, so that the two ways never alternate, and is
    notified again when it grows. Alerts of subjects that are no longer open are resolved.

    Args:
        session: in the transaction that changes what is open.
        group: how the rule's alerts are grouped.
        findings: one per open subject.
        new_subjects: which subjects were not open before this transaction.
    """
    open_subjects = set(
        session.scalars(select(Alert.subject).where(Alert.rule == group.rule, Alert.resolved_at.is_(None)))
    )
    is_grouped = bool(findings) and (group.subject in open_subjects or len(findings) > MAX_SINGLE_ALERTS)
    still_open = {one.subject for one in findings} | ({group.subject} if is_grouped else set())
    resolve_alerts(session, group.rule, open_subjects - still_open)
    for one in findings:
        if not is_grouped or one.subject in open_subjects:
            open_alert(session, group.rule, one.subject, one.severity.value, one.detail)
    if is_grouped:
        worst = max((one.severity for one in findings), key=lambda severity: severity.priority)
        open_alert(
            session,
            group.rule,
            group.subject,
            worst.value,
            list_findings(group, findings),
            has_recurred=not still_open.isdisjoint(new_subjects),
        )


def list_findings(group: AlertGroup, findings: Sequence[Finding]) -> str:
    """Return the detail of the alert that lists these findings, worst first; it is cut after MAX_LISTED."""
    worst_first = sorted(findings, key=lambda one: -one.severity.priority)
    listed = ", ".join(one.subject for one in worst_first[:MAX_LISTED])
    rest = f" and {len(findings) - MAX_LISTED:,} more" if len(findings) > MAX_LISTED else ""
    return f"{pluralize(len(findings), group.noun)}: {listed}{rest}. {group.advice}"
