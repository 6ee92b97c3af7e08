"""Keeps the watchdog's trouble in `ops.alerts` too, where `status`, the runbook and every dashboard look for it.

The rows are marked as told, because the watchdog tells of them itself. Written anew at each look, so that what
happened while the database was away is there once it is back.
"""

from collections.abc import Iterable

from sqlalchemy import Text, func, select, update
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert
from seedtrust_ops.watchdog.evaluator import RULES, Trouble
from seedtrust_ops.watchdog.state_file import Told


def record(session: Session, told: Iterable[Told]) -> None:
    """Open a row for each trouble, and resolve those of the watchdog's rules that are over or that it does not know."""
    told = list(told)
    _open(session, told)
    lasting = [(one.trouble.rule, one.trouble.subject) for one in told if one.over_at is None]
    known = array_table("lasting", [("rule", Text()), ("subject", Text())], lasting)
    lasts = select(known.c.rule).where(known.c.rule == Alert.rule, known.c.subject == Alert.subject).exists()
    session.execute(
        update(Alert)
        .where(Alert.rule.in_(RULES), Alert.resolved_at.is_(None), ~lasts)
        .values(resolved_at=func.now(), resolution_notified_at=func.now())
    )


def recorded(session: Session) -> list[Trouble]:
    """Return the trouble that is open in `ops.alerts`: all there is to know of before where the file is lost."""
    alerts = session.scalars(select(Alert).where(Alert.rule.in_(RULES), Alert.resolved_at.is_(None)))
    return [
        Trouble(alert.rule, alert.subject, Severity(alert.severity), alert.detail, alert.opened_at) for alert in alerts
    ]


def _open(session: Session, told: list[Told]) -> None:
    rows = array_table(
        "troubles",
        [
            *((name, Text()) for name in ("rule", "subject", "severity", "detail")),
            ("opened_at", TIMESTAMP(timezone=True)),
        ],
        [
            (one.trouble.rule, one.trouble.subject, one.trouble.severity.value, one.trouble.detail, one.trouble.since)
            for one in told
        ],
    )
    # One that began while the database was away and is over by now is opened here and resolved in the same breath.
    kept = select(Alert.id).where(
        Alert.rule == rows.c.rule, Alert.subject == rows.c.subject, Alert.opened_at == rows.c.opened_at
    )
    session.execute(
        insert(Alert)
        .from_select(
            ["rule", "subject", "severity", "detail", "opened_at", "notified_at", "notified_severity"],
            select(*rows.c, func.now(), rows.c.severity).where(~kept.exists()),
        )
        .on_conflict_do_nothing(index_elements=["rule", "subject"], index_where=Alert.resolved_at.is_(None))
    )
