"""The only writer of `ops.alerts`: opens, renews, acknowledges and resolves; at most one open row per rule and subject.

Who is notified of an alert, and when, is decided in `domain/alert_notifications`.
See docs/decisions/alerts.md.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    SQLColumnExpression,
    Text,
    and_,
    case,
    false,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, Insert, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_parameter, array_table
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert

MAX_RESOLVED_LISTED = 200
ACKNOWLEDGED_FOR = timedelta(hours=4)
"""How long an acknowledgement holds unless the person says otherwise: about half a shift."""
_FINDING_COLUMNS = [("rule", Text()), ("subject", Text()), ("severity", Text()), ("detail", Text())]


CLOSED_BY_PEOPLE = frozenset(
    {
        "amount_differs",
        "bank_contradicts_itself",
        "idempotency_key_reused",
        "paid_without_approval",
        "request_paid_twice",
        "second_transfer",
        "transfer_ambiguous",
    }
)
"""Rules whose alerts only a person resolves. The database refuses it to the jobs' role (`ops.guard_alert`)."""


class UnknownAlert(SeedTrustError):
    """No alert has that number."""


class AlertAlreadyResolved(SeedTrustError):
    """The alert is already resolved, so it can't be acknowledged or resolved."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with one subject; `detail` is one or two sentences for on-call, without personal data."""

    rule: str
    subject: str
    severity: Severity
    detail: str


@dataclass(frozen=True)
class RecordedIncident:
    """An incident that another process has observed, with its own times (aware); `resolved_at` is None if ongoing."""

    finding: Finding
    opened_at: datetime
    resolved_at: datetime | None


def open_alert(
    session: Session, rule: str, subject: str, severity: str, detail: str, *, has_recurred: bool | None = None
) -> None:
    """Open an alert of `rule` for `subject`, or renew the open one.

    A detail that differs from the open alert's is a new occurrence: it replaces the detail and is counted, so that
    people are notified again. The same detail changes nothing: it is the same fact, found again. `has_recurred` says
    instead whether to count an occurrence, if that does not follow from the detail.
    """
    statement = insert(Alert).values(rule=rule, subject=subject, severity=severity, detail=detail)
    new_detail = statement.excluded.detail
    differs = Alert.detail != new_detail if not has_recurred else literal(True)
    occurrences = Alert.occurrences + (0 if has_recurred is False else 1)
    session.execute(_renewing(statement, where=differs, detail=new_detail, occurrences=occurrences))


def resolve_alert(session: Session, rule: str, subject: str) -> None:
    """Resolve the open alert of `rule` for `subject`; do nothing if none is open.

    Raises:
        ValueError: if only a person may resolve alerts of the rule.
    """
    resolve_alerts(session, rule, [subject])


def resolve_alerts(session: Session, rule: str, subjects: Collection[str]) -> None:
    """Resolve the open alerts of `rule` for these subjects; raises as `resolve_alert` does."""
    if rule in CLOSED_BY_PEOPLE:
        raise ValueError(f"Only a person resolves alerts of rule {rule}; see CLOSED_BY_PEOPLE.")
    if subjects:
        session.execute(
            update(Alert)
            .where(
                Alert.rule == rule,
                Alert.subject == func.any(array_parameter(subjects, Text())),
                Alert.resolved_at.is_(None),
            )
            .values(resolved_at=func.now())
        )


def record_findings(
    session: Session, *, rule: str, findings: Sequence[Finding], quiet_seconds: float
) -> tuple[int, int]:
    """Open or renew an alert for each finding, and resolve the rule's other alerts if not found for `quiet_seconds`.

    The severity of an open alert may rise but never falls. A problem that recurs within `quiet_seconds` stays the
    same alert, and so does one whose detail changes from one evaluation to the next.

    Returns:
        The number of alerts opened, and the number resolved.
    """
    opened = _open_or_renew_found(session, findings)
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
    return opened, len(resolved.all())


def record_failure(session: Session, *, failure: Finding) -> int:
    """Open or renew the alert that a rule could not be evaluated; return how many opened. Its other alerts stay."""
    return _open_or_renew_found(session, [failure])


def sync_incidents(
    session: Session, rules: Collection[str], incidents: Sequence[RecordedIncident]
) -> dict[tuple[str, str], int]:
    """Make the alerts of `rules` match `incidents`: open what is missing, and resolve what is over or not listed.

    An incident is recorded once, by its opening time, so that the call can be repeated, also after an outage of this
    database: an incident that began and ended meanwhile is opened and resolved here.

    Returns:
        The alert of each incident, by rule and subject.
    """
    rows = array_table(
        "incidents",
        [*_FINDING_COLUMNS, ("opened_at", TIMESTAMP(timezone=True))],
        [
            (one.finding.rule, one.finding.subject, one.finding.severity.value, one.finding.detail, one.opened_at)
            for one in incidents
        ],
    )
    is_same_subject = (Alert.rule == rows.c.rule) & (Alert.subject == rows.c.subject)
    recorded = select(Alert.id).where(is_same_subject, Alert.opened_at == rows.c.opened_at)
    # An alert of the incident that is open already has another opening time if the caller has lost its state.
    own_alert = is_same_subject & ((Alert.opened_at == rows.c.opened_at) | Alert.resolved_at.is_(None))
    session.execute(
        insert(Alert)
        .from_select(["rule", "subject", "severity", "detail", "opened_at"], select(*rows.c).where(~recorded.exists()))
        .on_conflict_do_nothing(index_elements=["rule", "subject"], index_where=Alert.resolved_at.is_(None))
    )
    alerts = session.execute(select(Alert.rule, Alert.subject, Alert.id).join(rows, own_alert).order_by(Alert.id)).all()
    ongoing = array_table(
        "ongoing",
        [("rule", Text()), ("subject", Text())],
        [(one.finding.rule, one.finding.subject) for one in incidents if one.resolved_at is None],
    )
    is_ongoing = select(ongoing.c.rule).where(ongoing.c.rule == Alert.rule, ongoing.c.subject == Alert.subject)
    session.execute(
        update(Alert)
        .where(Alert.rule.in_(rules), Alert.resolved_at.is_(None), ~is_ongoing.exists())
        .values(resolved_at=func.now())
    )
    return {(alert.rule, alert.subject): alert.id for alert in alerts}


def acknowledge(session: Session, alert_id: int, by: str, duration: timedelta = ACKNOWLEDGED_FOR) -> Alert:
    """Acknowledge an open alert for `duration`: `by` is working on it.

    Until then nobody is notified of it again, not even that it is resolved, unless it gets worse: its severity rises,
    or it occurs again. If it is still open after that, it is notified again. A later acknowledgement replaces an
    earlier one. Raises `UnknownAlert` and `AlertAlreadyResolved`.
    """
    alert = _lock_open_alert(session, alert_id)
    alert.acknowledged_at = func.now()
    alert.acknowledged_until = func.now() + duration
    alert.acknowledged_severity = alert.severity
    alert.acknowledged_by = by
    session.flush()
    session.refresh(alert)
    return alert


def resolve_manually(session: Session, alert_id: int, by: str) -> Alert:
    """Resolve an open alert that a person has dealt with; if a health rule still finds it, the next tick reopens it.

    Raises `UnknownAlert` and `AlertAlreadyResolved`.
    """
    alert = _lock_open_alert(session, alert_id)
    alert.resolved_at = func.now()
    alert.detail = f"{alert.detail} Resolved by {by}."
    session.flush()
    session.refresh(alert)
    return alert


def open_alerts(session: Session) -> Sequence[Alert]:
    """Return every open alert, worst first."""
    return session.scalars(
        select(Alert).where(Alert.resolved_at.is_(None)).order_by(severity_rank(Alert.severity).desc(), Alert.id)
    ).all()


def resolved_alerts(session: Session) -> Sequence[Alert]:
    """Return the last MAX_RESOLVED_LISTED resolved alerts, newest first."""
    return session.scalars(
        select(Alert)
        .where(Alert.resolved_at.is_not(None))
        .order_by(Alert.resolved_at.desc())
        .limit(MAX_RESOLVED_LISTED)
    ).all()


def is_acknowledged_now() -> ColumnElement[bool]:
    """Return the condition of `channel_state.is_acknowledged`, now."""
    is_in_time = Alert.acknowledged_until > func.coalesce(Alert.resolved_at, func.now())
    return func.coalesce(and_(is_in_time, Alert.acknowledged_severity == Alert.severity), false())


def severity_rank(severity: SQLColumnExpression[str]) -> ColumnElement[int]:
    """Return an SQL expression that ranks severities: the worse, the higher."""
    return case(*((severity == one.value, literal(one.priority)) for one in Severity), else_=literal(-1))


def _open_or_renew_found(session: Session, findings: Sequence[Finding]) -> int:
    worst = {finding.subject: finding for finding in sorted(findings, key=lambda one: one.severity.priority)}
    if not worst:
        return 0
    found = array_table(
        "found",
        _FINDING_COLUMNS,
        [(one.rule, one.subject, one.severity.value, one.detail) for one in worst.values()],
    )
    statement = insert(Alert).from_select(
        ["rule", "subject", "severity", "detail", "last_found_at"], select(*found.c, func.now())
    )
    excluded = statement.excluded
    upsert = _renewing(statement, detail=excluded.detail, last_found_at=excluded.last_found_at)
    # In PostgreSQL, a row inserted by this statement has no xmax; an updated one has.
    return sum(session.scalars(upsert.returning(literal_column("xmax = 0", Boolean()))))


def _renewing(
    statement: Insert, *, where: ColumnElement[bool] | None = None, **renewed: SQLColumnExpression[Any]
) -> Insert:
    """Let `statement` renew the open alert if there is one; its severity may rise but never falls."""
    severity = statement.excluded.severity
    rises = severity_rank(severity) > severity_rank(Alert.severity)
    return statement.on_conflict_do_update(
        index_elements=["rule", "subject"],
        index_where=Alert.resolved_at.is_(None),
        set_={**renewed, "severity": case((rises, severity), else_=Alert.severity)},
        where=where,
    )


def resolve_all_of(session: Session, rules: Collection[str], subject: str) -> None:
    """Resolve the open alerts of these rules for `subject`, because a person has settled what they are about."""
    session.execute(
        update(Alert)
        .where(Alert.rule.in_(rules), Alert.subject == subject, Alert.resolved_at.is_(None))
        .values(resolved_at=func.now())
    )


def _lock_open_alert(session: Session, alert_id: int) -> Alert:
    alert = session.scalars(select(Alert).where(Alert.id == alert_id).with_for_update()).one_or_none()
    if alert is None:
        raise UnknownAlert(f"No alert has the number {alert_id}. `seedtrust-ops alerts` lists the open ones.")
    if alert.resolved_at is not None:
        raise AlertAlreadyResolved(
            f"Alert {alert_id} ({alert.rule}, {alert.subject}) was already resolved at "
            f"{alert.resolved_at:%Y-%m-%d %H:%M} UTC. Nothing was changed."
        )
    return alert
