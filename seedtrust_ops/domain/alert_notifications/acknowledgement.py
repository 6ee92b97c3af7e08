"""What a person does about an alert: look at it, say that they see to it, or close what only a person can settle."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import severity_rank
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import Alert

RESOLVED_LISTED = 200


class UnknownAlert(SeedTrustError):
    """There is no alert with that number."""


class AlertIsOver(SeedTrustError):
    """The alert was resolved, so there is nothing to do about it."""


def open_alerts(session: Session) -> Sequence[Alert]:
    """Return every open alert, worst first."""
    return session.scalars(
        select(Alert).where(Alert.resolved_at.is_(None)).order_by(severity_rank(Alert.severity).desc(), Alert.id)
    ).all()


def resolved_alerts(session: Session) -> Sequence[Alert]:
    """Return the last RESOLVED_LISTED alerts that are over, newest first."""
    return session.scalars(
        select(Alert).where(Alert.resolved_at.is_not(None)).order_by(Alert.resolved_at.desc()).limit(RESOLVED_LISTED)
    ).all()


def acknowledge(session: Session, alert_id: int, by: str) -> Alert:
    """Note that somebody sees to an open alert: nothing more is told of it, and its end is recorded in silence.

    The first to say so stays the one. Raises `UnknownAlert` and `AlertIsOver`.
    """
    alert = _open_alert(session, alert_id)
    if alert.acknowledged_at is None:
        alert.acknowledged_at = func.now()
        alert.acknowledged_by = by
        alert.notified_at = func.coalesce(Alert.notified_at, func.now())
        alert.notified_severity = func.coalesce(Alert.notified_severity, Alert.severity)
        session.flush()
        session.refresh(alert)
    return alert


def resolve_by_hand(session: Session, alert_id: int, by: str) -> Alert:
    """Close an open alert that somebody has settled; what a health rule still finds is opened anew by its next look.

    Raises `UnknownAlert` and `AlertIsOver`.
    """
    alert = _open_alert(session, alert_id)
    alert.resolved_at = func.now()
    alert.detail = f"{alert.detail} Closed by {by}."
    session.flush()
    session.refresh(alert)
    return alert


def _open_alert(session: Session, alert_id: int) -> Alert:
    alert = session.scalars(select(Alert).where(Alert.id == alert_id).with_for_update()).one_or_none()
    if alert is None:
        raise UnknownAlert(f"There is no alert with the number {alert_id}. `seedtrust-ops alerts` lists the open ones.")
    if alert.resolved_at is not None:
        raise AlertIsOver(
            f"Alert {alert_id} ({alert.rule}, {alert.subject}) is over since {alert.resolved_at:%Y-%m-%d %H:%M} UTC: "
            "there is nothing to do about it."
        )
    return alert
