"""Mirrors the watchdog's incidents to `ops.alerts`, where `status`, the runbook and dashboards read them.

The rows are marked as notified, because the watchdog notifies people itself. They are written again in every round,
so that an incident during a database outage is recorded once the database is back.
"""

from collections.abc import Iterable

from sqlalchemy import Text, func, select, update
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert
from seedtrust_ops.watchdog.evaluator import RULES, Incident
from seedtrust_ops.watchdog.state_file import NotifiedIncident


def sync_alert_rows(session: Session, incidents: Iterable[NotifiedIncident]) -> None:
    """Open a row per incident; resolve the open rows of the watchdog's rules that are over or unknown to it."""
    incidents = list(incidents)
    _open_alerts(session, incidents)
    ongoing = [(one.incident.rule, one.incident.subject) for one in incidents if one.resolved_at is None]
    known = array_table("ongoing", [("rule", Text()), ("subject", Text())], ongoing)
    is_ongoing = select(known.c.rule).where(known.c.rule == Alert.rule, known.c.subject == Alert.subject).exists()
    session.execute(
        update(Alert)
        .where(Alert.rule.in_(RULES), Alert.resolved_at.is_(None), ~is_ongoing)
        .values(resolved_at=func.now(), resolution_notified_at=func.now())
    )


def read_open_incidents(session: Session) -> list[Incident]:
    """Return the incidents that are open in `ops.alerts`, which replace the state file if it is lost."""
    alerts = session.scalars(select(Alert).where(Alert.rule.in_(RULES), Alert.resolved_at.is_(None)))
    return [
        Incident(alert.rule, alert.subject, Severity(alert.severity), alert.detail, alert.opened_at) for alert in alerts
    ]


def _open_alerts(session: Session, incidents: list[NotifiedIncident]) -> None:
    rows = array_table(
        "incidents",
        [
            *((name, Text()) for name in ("rule", "subject", "severity", "detail")),
            ("opened_at", TIMESTAMP(timezone=True)),
        ],
        [
            (
                one.incident.rule,
                one.incident.subject,
                one.incident.severity.value,
                one.incident.detail,
                one.incident.since,
            )
            for one in incidents
        ],
    )
    # An incident that began and ended during a database outage is opened here and resolved by the same call.
    recorded = select(Alert.id).where(
        Alert.rule == rows.c.rule, Alert.subject == rows.c.subject, Alert.opened_at == rows.c.opened_at
    )
    session.execute(
        insert(Alert)
        .from_select(
            ["rule", "subject", "severity", "detail", "opened_at", "notified_at", "notified_severity"],
            select(*rows.c, func.now(), rows.c.severity).where(~recorded.exists()),
        )
        .on_conflict_do_nothing(index_elements=["rule", "subject"], index_where=Alert.resolved_at.is_(None))
    )
