"""Measures how long retention takes for 20,000 old runs, and Dagster's own `delete_run` for 200 of them.

Run with `python -m seedtrust_ops_tests.bench.run_purge`; it starts its own PostgreSQL.
"""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text

from seedtrust_ops.dagster_db.run_purge import RetentionRule, purge_runs
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.support.dagster_homes import open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.databases import postgres_folder

RUNS = 20_000
EVENTS_PER_RUN = 20
DAGSTER_DELETED_RUNS = 200

# A run of report_generation has about this many events of about this size.
_INSERT_RUNS_SQL = (
    """
    insert into runs (run_id, pipeline_name, status, run_body, create_timestamp, update_timestamp)
    select 'run-' || n, 'report_generation', 'SUCCESS', repeat('x', 2000), now() - interval '90 days',
           now() - interval '90 days'
    from generate_series(1, :runs) n
    """,
    """
    insert into run_tags (run_id, key, value)
    select 'run-' || n, 'tag-' || t, 'value' from generate_series(1, :runs) n, generate_series(1, 6) t
    """,
    """
    insert into event_logs (run_id, event, dagster_event_type, timestamp)
    select 'run-' || n, repeat('x', 1000), 'ENGINE_EVENT', now() - interval '100 days'
    from generate_series(1, :runs) n, generate_series(1, :events) e
    """,
)


def measure() -> None:
    """Fill Dagster's storage, delete the runs in both ways, and print the times."""
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "d")
        with temporary_dagster_home(server, folder / "home") as home, open_instance(home) as instance:
            engine = create_engine(home.storage_url)
            with engine.begin() as connection:
                for statement in _INSERT_RUNS_SQL:
                    connection.execute(text(statement), {"runs": RUNS + DAGSTER_DELETED_RUNS, "events": EVENTS_PER_RUN})
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("analyze"))
            began = time.perf_counter()
            for number in range(1, DAGSTER_DELETED_RUNS + 1):
                instance.delete_run(f"run-{number}")
            own_seconds = (time.perf_counter() - began) / DAGSTER_DELETED_RUNS
            began = time.perf_counter()
            old = RetentionRule(datetime.now(UTC) - timedelta(days=60))
            purge = purge_runs(
                engine,
                [old],
                select_deletable=set,
                delete_output=lambda run_ids: None,
                is_time_up=lambda: False,
            )
            seconds = time.perf_counter() - began
            engine.dispose()
        embedded_postgres.stop(folder / "d")
    print(f"{purge.deleted} runs in {seconds:.1f} s, {1000 * seconds / purge.deleted:.2f} ms each")  # noqa: T201
    print(f"Dagster's delete_run: {1000 * own_seconds:.2f} ms each, {own_seconds * RUNS:.0f} s for {RUNS}")  # noqa: T201


if __name__ == "__main__":
    measure()
