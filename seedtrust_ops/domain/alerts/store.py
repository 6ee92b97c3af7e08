"""The store of alerts: at most one open row of `ops.alerts` per rule and subject, opened, renewed and resolved here.

Who is notified of an alert, and when, is decided in `domain/alert_notifications`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import (
    Boolean,
    ColumnElement,
    SQLColumnExpression,
    Text,
    case,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.severity import Severity
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


@dataclass(frozen=True)
class Finding:
    """One subject in trouble; `detail` is a sentence or two for people, without personal data."""

    rule: str
    subject: str
    severity: Severity
    detail: str


def record_findings(
    session: Session, *, rule: str, findings: Sequence[Finding], quiet_seconds: float
) -> tuple[int, int]:
    """Open or renew an alert for each finding, and resolve the rule's others that were not found for a while.

    The severity of an open alert may rise and never falls. Trouble that comes back within `quiet_seconds` is the
    same trouble.

    Returns:
        How many alerts were opened, and how many resolved.
    """
    return _open_or_renew(session, findings), _resolve_others(session, rule, findings, quiet_seconds)


def record_failure(session: Session, *, failure: Finding) -> int:
    """Open or renew the alert that a rule could not be asked; the rule's others stay. Return how many were opened."""
    return _open_or_renew(session, [failure])


def _open_or_renew(session: Session, findings: Sequence[Finding]) -> int:
    worst = {finding.subject: finding for finding in sorted(findings, key=lambda one: one.severity.priority)}
    if not worst:
        return 0
    found = array_table(
        "found",
        [("rule", Text()), ("subject", Text()), ("severity", Text()), ("detail", Text())],
        [(one.rule, one.subject, one.severity.value, one.detail) for one in worst.values()],
    )
    statement = insert(Alert).from_select(
        ["rule", "subject", "severity", "detail", "last_found_at"], select(*found.c, func.now())
    )
    new = statement.excluded
    upsert = (
        statement.on_conflict_do_update(
            index_elements=["rule", "subject"],
            index_where=Alert.resolved_at.is_(None),
            set_={
                "detail": new.detail,
                "last_found_at": new.last_found_at,
                "severity": case(
                    (severity_rank(new.severity) > severity_rank(Alert.severity), new.severity), else_=Alert.severity
                ),
            },
        )
        # PostgreSQL: a row that this statement inserted has no xmax, one that it updated has.
        .returning(literal_column("xmax = 0", Boolean()))
    )
    return sum(session.scalars(upsert))


def _resolve_others(session: Session, rule: str, findings: Sequence[Finding], quiet_seconds: float) -> int:
    resolved = session.execute(
        update(Alert)
        .where(
            Alert.rule == rule,
            Alert.resolved_at.is_(None),
            Alert.last_found_at <= func.now() - timedelta(seconds=quiet_seconds),
            Alert.subject.not_in([finding.subject for finding in findings]),
        )
        .values(resolved_at=func.now())
        .returning(Alert.id)
    )
    return len(resolved.all())


def severity_rank(severity: SQLColumnExpression[str]) -> ColumnElement[int]:
    """Return the SQL expression that is higher the worse a severity is."""
    return case(*((severity == one.value, literal(one.priority)) for one in Severity), else_=literal(-1))
