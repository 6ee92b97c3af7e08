"""Opens, renews and resolves alerts: at most one open row of `ops.alerts` per rule and subject.

Who is notified of an alert, and when, is decided in `domain/alert_notifications`.
See docs/decisions/alerts.md.
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
    """Open an alert of `rule` for `subject`, unless one is open."""
    session.execute(
        insert(Alert)
        .values(rule=rule, subject=subject, severity=severity, detail=detail)
        .on_conflict_do_nothing(index_elements=["rule", "subject"], index_where=Alert.resolved_at.is_(None))
    )


def resolve_alert(session: Session, rule: str, subject: str) -> None:
    """Resolve the open alert of `rule` for `subject`; do nothing if none is open."""
    session.execute(
        update(Alert)
        .where(Alert.rule == rule, Alert.subject == subject, Alert.resolved_at.is_(None))
        .values(resolved_at=func.now())
    )


@dataclass(frozen=True)
class Finding:
    """Something wrong with one subject; `detail` is one or two sentences for on-call, without personal data."""

    rule: str
    subject: str
    severity: Severity
    detail: str


def record_findings(
    session: Session, *, rule: str, findings: Sequence[Finding], quiet_seconds: float
) -> tuple[int, int]:
    """Open or renew an alert for each finding, and resolve the rule's other alerts if not found for `quiet_seconds`.

    The severity of an open alert may rise but never falls. A problem that recurs within `quiet_seconds` stays the
    same alert.

    Returns:
        The number of alerts opened, and the number resolved.
    """
    return _open_or_renew(session, findings), _resolve_others(session, rule, findings, quiet_seconds)


def record_failure(session: Session, *, failure: Finding) -> int:
    """Open or renew the alert that a rule could not be evaluated; return how many opened. Its other alerts stay."""
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
    excluded = statement.excluded
    upsert = (
        statement.on_conflict_do_update(
            index_elements=["rule", "subject"],
            index_where=Alert.resolved_at.is_(None),
            set_={
                "detail": excluded.detail,
                "last_found_at": excluded.last_found_at,
                "severity": case(
                    (severity_rank(excluded.severity) > severity_rank(Alert.severity), excluded.severity),
                    else_=Alert.severity,
                ),
            },
        )
        # In PostgreSQL, a row inserted by this statement has no xmax; an updated one has.
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
    """Return an SQL expression that ranks severities: the worse, the higher."""
    return case(*((severity == one.value, literal(one.priority)) for one in Severity), else_=literal(-1))
