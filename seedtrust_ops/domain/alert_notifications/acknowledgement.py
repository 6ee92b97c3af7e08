"""What a person does with an alert: list alerts, acknowledge one, or resolve one that no rule resolves."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import Alert

MAX_RESOLVED_LISTED = 200


class UnknownAlert(SeedTrustError):
    """No alert has that number."""


class AlertAlreadyResolved(SeedTrustError):
    """The alert is already resolved, so it can't be acknowledged or resolved."""


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


def acknowledge(session: Session, alert_id: int, by: str) -> Alert:
    """Acknowledge an open alert: nobody is notified of it again, not even that it is resolved.

    The first acknowledgement stays. Raises `UnknownAlert` and `AlertAlreadyResolved`.
    """
    alert = _lock_open_alert(session, alert_id)
    if alert.acknowledged_at is None:
        alert.acknowledged_at = func.now()
        alert.acknowledged_by = by
        alert.notified_at = func.coalesce(Alert.notified_at, func.now())
        alert.notified_severity = func.coalesce(Alert.notified_severity, Alert.severity)
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
