"""Alerts: one open row a rule and subject, opened in the transaction that finds the trouble.

Whom an alert is told to, and when, is not decided here.
"""

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.tables import Alert


def open_alert(session: Session, rule: str, subject: str, severity: str, detail: str) -> None:
    """Open the alert of `rule` about `subject`, unless it is open already."""
    session.execute(
        insert(Alert)
        .values(rule=rule, subject=subject, severity=severity, detail=detail)
        .on_conflict_do_nothing(index_elements=["rule", "subject"], index_where=Alert.resolved_at.is_(None))
    )


def resolve_alert(session: Session, rule: str, subject: str) -> None:
    """Resolve the open alert of `rule` about `subject`; nothing happens where none is open."""
    session.execute(
        update(Alert)
        .where(Alert.rule == rule, Alert.subject == subject, Alert.resolved_at.is_(None))
        .values(resolved_at=func.now())
    )
