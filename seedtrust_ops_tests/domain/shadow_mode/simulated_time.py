"""Simulates the passing of days: moves every timestamp and date in the database one day back, and nothing else."""

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

TIME_COLUMNS = "select table_schema, table_name, column_name from information_schema.columns where data_type = :kind"
DATED_SUBJECTS = r"^(case-close|balance-reminder):\d+:\d{4}-\d\d-\d\d:\d+$"
"""Subjects that contain a date: the dedupe keys of reminders."""


def shift_back_one_day(sessions: sessionmaker[Session]) -> None:
    """Move every timestamp and date of schemas `public` and `ops` one day back."""
    with sessions.begin() as session:
        # Triggers must not fire: no data changes, only time passes.
        session.execute(text("set local session_replication_role = replica"))
        for kind, cast in (("timestamp with time zone", ""), ("date", "::date")):
            columns: dict[str, list[str]] = {}
            for schema, table, column in session.execute(text(TIME_COLUMNS), {"kind": kind}):
                if schema in ("public", "ops"):
                    columns.setdefault(f"{schema}.{table}", []).append(column)
            for table, names in columns.items():
                assignments = ", ".join(f"{name} = ({name} - interval '1 day'){cast}" for name in names)
                session.execute(text(f"update {table} set {assignments}"))
        session.execute(
            text(
                "update ops.shadow_decisions set subject = split_part(subject, ':', 1) || ':' ||"
                " split_part(subject, ':', 2) || ':' || split_part(subject, ':', 3)::date - 1 || ':' ||"
                " split_part(subject, ':', 4) where subject ~ :dated"
            ),
            {"dated": DATED_SUBJECTS},
        )


def time_zone_at_noon() -> str:
    """Return a time zone in which it is about noon, so that no test crosses midnight."""
    offset = datetime.now(UTC).hour - 12
    return f"Etc/GMT{offset:+d}" if offset else "Etc/GMT"
