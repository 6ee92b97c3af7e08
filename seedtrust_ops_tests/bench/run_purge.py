"""How long retention takes for 20,000 old runs, and Dagster's own way for some of them.

Run as `python -m seedtrust_ops_tests.bench.run_purge`; it starts a PostgreSQL of its own.
"""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text

from seedtrust_ops.dagster_db.run_purge import Age, delete_old_runs
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.support.dagster_homes import dagster_home_of_its_own, instance_of
from seedtrust_ops_tests.support.databases import folder_for_a_server

RUNS = 20_000
EVENTS_A_RUN = 20
DAGSTERS_OWN = 200

# A run of report_generation has about so many events of about this size.
_FILL = (
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
    """Fill a storage, delete the runs in both ways, and print the times."""
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "d")
        with dagster_home_of_its_own(server, folder / "home") as home, instance_of(home) as instance:
            engine = create_engine(home.storage_url)
            with engine.begin() as connection:
                for statement in _FILL:
                    connection.execute(text(statement), {"runs": RUNS + DAGSTERS_OWN, "events": EVENTS_A_RUN})
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("analyze"))
            began = time.perf_counter()
            for number in range(1, DAGSTERS_OWN + 1):
                instance.delete_run(f"run-{number}")
            own = (time.perf_counter() - began) / DAGSTERS_OWN
            began = time.perf_counter()
            old = Age(datetime.now(UTC) - timedelta(days=60))
            cleared = delete_old_runs(
                engine,
                [old],
                may_go=set,
                forget_output=lambda run_ids: None,
                is_over=lambda: False,
            )
            took = time.perf_counter() - began
            engine.dispose()
        embedded_postgres.stop(folder / "d")
    print(f"{cleared.deleted} runs in {took:.1f} s, {1000 * took / cleared.deleted:.2f} ms each")  # noqa: T201
    print(f"Dagster's own way: {1000 * own:.2f} ms each, {own * RUNS:.0f} s for {RUNS}")  # noqa: T201


if __name__ == "__main__":
    measure()
