"""The status of component `jobs`: what an accepted one proves, and that its history costs nothing."""

from time import process_time

from sqlalchemy import event, select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.jobs_status import enqueue_jobs_status, record_accepted_status
from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.outbox.event_sink import send_due_events
from seedtrust_ops.domain.outbox.store import Destination
from seedtrust_ops.tables import AlertNotification


class AcceptingSink:
    """An internal API that accepts every status."""

    def send(self, _dedupe_key: str, _body: object, _at: object) -> None:
        return None


def post_status(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        enqueue_jobs_status(session)
    send_due_events(
        sessions, Destination.INTERNAL_API, AcceptingSink(), max_seconds=60, on_accepted=record_accepted_status
    )


def delivered(sessions: sessionmaker[Session]) -> list[tuple[int, str, str]]:
    with sessions() as session:
        rows = session.scalars(select(AlertNotification).order_by(AlertNotification.id))
        return [(row.alert_id, row.notification, row.severity) for row in rows]


def test_accepted_status_proves_what_it_names_and_no_longer_names(sessions: sessionmaker[Session]) -> None:
    for severity in ("HIGH", "CRITICAL"):
        with sessions.begin() as session:
            open_alert(session, "batch_stuck", "batch 7", severity, f"It is {severity}.")
        post_status(sessions)
    with sessions.begin() as session:
        # This one opens and is resolved between two statuses, so that no status has ever named it.
        open_alert(session, "batch_stuck", "batch 8", "HIGH", "It is stuck.")
        resolve_alert(session, "batch_stuck", "batch 8")
        resolve_alert(session, "batch_stuck", "batch 7")
    for _ in range(2):
        post_status(sessions)
    assert delivered(sessions) == [
        (1, "opened", "HIGH"),
        (1, "rose-to-critical", "CRITICAL"),
        (1, "resolved", "CRITICAL"),
    ]


def test_status_history_of_an_alert_storm_costs_a_tick_no_time(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.alerts (rule, subject, severity)"
                " select 'batch_failures', 'batch ' || n, 'HIGH' from generate_series(1, 1000) n"
            )
        )
        session.execute(
            text(
                "insert into ops.outgoing_events (destination, dedupe_key, body, status, sent_at)"
                " select 'internal_api', 'status\\:jobs\\:after\\:' || n, jsonb_build_object('alerts',"
                " (select jsonb_object_agg(id\\:\\:text, 'HIGH') from ops.alerts where id <= n)), 'sent', now()"
                " from generate_series(1, 1000) n"
            )
        )
        session.execute(text("update ops.alerts set resolved_at = now()"))
    post_status(sessions)
    began = process_time()
    post_status(sessions)
    assert process_time() - began < 1


def test_last_status_is_found_by_an_index_among_many_events(sessions: sessionmaker[Session]) -> None:
    engine = sessions.kw["bind"]
    post_status(sessions)
    with engine.begin() as connection:
        connection.execute(
            text(
                "insert into ops.outgoing_events (destination, dedupe_key, body, status, sent_at)"
                " select 'posthog', 'run ' || n, '{}', 'sent', now() from generate_series(1, 20000) n"
            )
        )
        connection.execute(text("analyze ops.outgoing_events"))
    selects = []

    def remember(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT") and "FROM ops.outgoing_events" in statement:
            selects.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", remember)
    try:
        with sessions.begin() as session:
            assert enqueue_jobs_status(session) is None
    finally:
        event.remove(engine, "before_cursor_execute", remember)
    assert selects
    with engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"explain {one}", values).scalars().all() for one, values in selects]
    assert [line for plan in plans for line in plan if "Seq Scan" in line] == []
