"""Days that pass without anybody waiting: everything in the database becomes a day older, and nothing else changes."""

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

TIMES = "select table_schema, table_name, column_name from information_schema.columns where data_type = :kind"
DATED = r"^(case-close|balance-reminder):\d+:\d{4}-\d\d-\d\d:\d+$"
"""Subjects that name a day: the dedupe keys of reminders."""


def let_a_day_pass(sessions: sessionmaker[Session]) -> None:
    """Make every moment and every date of `public` and `ops` a day older."""
    with sessions.begin() as session:
        # Triggers are for those who change something; here only time goes by.
        session.execute(text("set local session_replication_role = replica"))
        for kind, cast in (("timestamp with time zone", ""), ("date", "::date")):
            columns: dict[str, list[str]] = {}
            for schema, table, column in session.execute(text(TIMES), {"kind": kind}):
                if schema in ("public", "ops"):
                    columns.setdefault(f"{schema}.{table}", []).append(column)
            for table, names in columns.items():
                older = ", ".join(f"{name} = ({name} - interval '1 day'){cast}" for name in names)
                session.execute(text(f"update {table} set {older}"))
        session.execute(
            text(
                "update ops.shadow_decisions set subject = split_part(subject, ':', 1) || ':' ||"
                " split_part(subject, ':', 2) || ':' || split_part(subject, ':', 3)::date - 1 || ':' ||"
                " split_part(subject, ':', 4) where subject ~ :dated"
            ),
            {"dated": DATED},
        )


def zone_where_it_is_noon() -> str:
    """The time zone in which no test can run over midnight."""
    ahead = datetime.now(UTC).hour - 12
    return f"Etc/GMT{ahead:+d}" if ahead else "Etc/GMT"
