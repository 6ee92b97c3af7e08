"""Retention purges old rows that are no longer needed, with everything that belongs to them, and nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.dagster_db import run_purge
from seedtrust_ops.domain.outbox import store
from seedtrust_ops.jobs.retention import FREQUENT_JOBS
from seedtrust_ops.tables import JobRun, Notification, NotificationAttachment, OutgoingEvent
from seedtrust_ops.tag_names import DUE_TAG
from seedtrust_ops_tests.jobs.job_runner import JobResult, run
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.environment import SetVariables

NOW = datetime.now(UTC)
OLD, VERY_OLD = timedelta(days=61), timedelta(days=401)
STATUSES = {"SUCCESS": "COMPLETED", "FAILURE": "ERROR", "CANCELED": "REVOKED"}


class History:
    """Past runs, in Dagster's storage and in JobRun."""

    def __init__(self, instance: dg.DagsterInstance, storage: Engine, sessions: "sessionmaker[Session]") -> None:
        self._instance = instance
        self._storage = storage
        self._sessions = sessions

    def run(
        self,
        job: str,
        age: timedelta,
        status: str = "SUCCESS",
        *,
        mirrored: bool = True,
        tags: dict[str, str] | None = None,
        materializes: dg.AssetMaterialization | None = None,
    ) -> str:
        """Add a run that ended `age` ago and return its id."""
        run_id = create_run_for_test(
            self._instance, job_name=job, status=dg.DagsterRunStatus(status), tags=tags or {}
        ).run_id
        self._instance.report_engine_event("An event of this run.", run_id=run_id, job_name=job)
        if materializes is not None:
            self._instance.report_dagster_event(
                dg.DagsterEvent("ASSET_MATERIALIZATION", job, event_specific_data=_materialization_data(materializes)),
                run_id,
            )
        ended = (NOW - age).replace(tzinfo=None)
        with self._storage.begin() as connection:
            connection.execute(
                text("update runs set create_timestamp = :at, update_timestamp = :at where run_id = :run_id"),
                {"at": ended, "run_id": run_id},
            )
        with self._sessions.begin() as session:
            resolution = STATUSES.get(status) if mirrored else None
            session.add(
                JobRun(
                    run_id=run_id,
                    task_name=job,
                    status=resolution or "STARTED",
                    resolution=resolution,
                    queued_at=NOW - age,
                )
            )
        return run_id

    def add_newest(self, *jobs: str) -> None:
        """Add a run of today for each job, because the newest run of a job is always kept."""
        for job in jobs:
            self.run(job, timedelta(0))

    @property
    def run_ids(self) -> set[str]:
        return {run.run_id for run in self._instance.get_runs()}

    def count(self, statement: str, **values: Any) -> int:
        with self._storage.connect() as connection:
            return int(connection.scalar(text(statement), values) or 0)


def _materialization_data(materialization: dg.AssetMaterialization) -> Any:
    from dagster._core.events import StepMaterializationData

    return StepMaterializationData(materialization)


@pytest.fixture
def storage(dagster_home: DagsterHome) -> Iterator[Engine]:
    engine = create_engine(dagster_home.storage_url)
    yield engine
    engine.dispose()


@pytest.fixture
def history(instance: dg.DagsterInstance, storage: Engine, sessions: "sessionmaker[Session]") -> History:
    return History(instance, storage, sessions)


def run_retention(instance: dg.DagsterInstance) -> JobResult:
    result = run("retention", instance=instance)
    assert result.success, result.messages
    return result


def test_old_runs_are_purged_by_job_and_status_and_others_stay(
    history: History, instance: dg.DagsterInstance, sessions: "sessionmaker[Session]"
) -> None:
    other = "process_huntington_batch"
    purged = {history.run(job, OLD) for job in FREQUENT_JOBS}
    purged |= {history.run(job, VERY_OLD, status) for job in (FREQUENT_JOBS[0], other) for status in STATUSES}
    kept_runs = {history.run(job, timedelta(days=59)) for job in FREQUENT_JOBS}
    kept_runs |= {history.run(FREQUENT_JOBS[0], OLD, status) for status in ("FAILURE", "CANCELED")}
    kept_runs |= {history.run(other, OLD), history.run(other, timedelta(days=399), "FAILURE")}
    kept_runs |= {history.run(other, VERY_OLD, status, mirrored=False) for status in ("STARTED", "CANCELING")}
    history.add_newest(*FREQUENT_JOBS, other)
    before = history.run_ids
    result = run_retention(instance)
    assert before - history.run_ids == purged
    assert kept_runs <= history.run_ids
    assert result.returned == {"runs": len(purged), "runs_kept": 0, "events": 0, "attachments": 0, "complete": True}
    with sessions() as session:
        kept = set(session.scalars(select(JobRun.run_id)))
    assert purged <= kept


def test_run_without_a_final_status_in_job_run_stays(history: History, instance: dg.DagsterInstance) -> None:
    unmirrored = history.run(FREQUENT_JOBS[0], VERY_OLD, mirrored=False)
    history.add_newest(FREQUENT_JOBS[0])
    assert run_retention(instance).returned["runs_kept"] == 1
    assert unmirrored in history.run_ids


def test_newest_run_of_a_job_and_of_a_schedule_always_stays(history: History, instance: dg.DagsterInstance) -> None:
    by_schedule = {"dagster/schedule_name": "dr_auto_approval_schedule", DUE_TAG: "2024-01-01"}
    older = history.run("dr_auto_approval", 2 * VERY_OLD, tags=by_schedule)
    last_scheduled = history.run("dr_auto_approval", VERY_OLD, tags=by_schedule)
    by_hand = history.run("dr_auto_approval", VERY_OLD)
    newest = history.run("dr_auto_approval", VERY_OLD)
    run_retention(instance)
    assert {last_scheduled, newest} <= history.run_ids
    assert not {older, by_hand} & history.run_ids


def test_last_run_of_an_asset_and_of_each_partition_stays(history: History, instance: dg.DagsterInstance) -> None:
    def week(partition: str) -> dg.AssetMaterialization:
        return dg.AssetMaterialization("account_balances", partition=partition)

    first_try = history.run("account_balance_check", VERY_OLD, materializes=week("2025-01-05"))
    made = [
        history.run("account_balance_check", VERY_OLD, materializes=week(week_start))
        for week_start in ("2025-01-05", "2025-01-12")
    ]
    report = dg.AssetMaterialization(["reports", "case_ledger"])
    reports = [history.run("report_generation", OLD, materializes=report) for _ in range(2)]
    history.add_newest("account_balance_check", "report_generation")
    run_retention(instance)
    assert {*made, reports[1]} <= history.run_ids
    assert not {first_try, reports[0]} & history.run_ids
    assert instance.get_materialized_partitions(dg.AssetKey("account_balances")) == {"2025-01-05", "2025-01-12"}
    last = instance.get_latest_materialization_event(dg.AssetKey(["reports", "case_ledger"]))
    assert last is not None
    assert last.run_id == reports[1]


def test_events_tags_and_output_are_purged_with_the_run(history: History, instance: dg.DagsterInstance) -> None:
    report = dg.AssetMaterialization("some_report", tags={"some": "tag"})
    old, kept = (history.run("report_generation", OLD, tags={"some": "tag"}, materializes=report) for _ in range(2))
    history.add_newest("report_generation")
    folders = {}
    for run_id in (old, kept):
        with instance.compute_log_manager.open_log_stream([run_id, "compute_logs", "step"], _stdout()) as stream:
            stream.write("printed")
        folders[run_id] = Path(instance.compute_log_manager.get_captured_local_path([run_id], "x")).with_suffix("")  # type: ignore[attr-defined]
        assert folders[run_id].is_dir()
    rows = "select (select count(*) from {0} where run_id = :run_id)"
    counted = [rows.format(table) for table in ("runs", "run_tags", "event_logs")]
    assert all(history.count(statement, run_id=old) for statement in counted)
    tags = "select count(*) from asset_event_tags t left join event_logs e on e.id = t.event_id where e.id is null"
    run_retention(instance)
    assert [history.count(statement, run_id=old) for statement in counted] == [0, 0, 0]
    assert all(history.count(statement, run_id=kept) for statement in counted)
    assert history.count(tags) == 0
    assert [folders[run_id].exists() for run_id in (old, kept)] == [False, True]


def _stdout() -> Any:
    from dagster._core.storage.compute_log_manager import ComputeIOType

    return ComputeIOType.STDOUT


def test_purge_stops_at_the_time_limit_and_continues_next_time(
    history: History, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, set_variables: SetVariables
) -> None:
    monkeypatch.setattr(run_purge, "PAGE_SIZE", 2)
    for _ in range(5):
        history.run(FREQUENT_JOBS[0], OLD)
    history.add_newest(FREQUENT_JOBS[0])
    before = len(history.run_ids)
    set_variables(SEEDTRUST_RETENTION_SECONDS="0")
    assert run_retention(instance).returned["complete"] is False
    # The retention run itself has been added.
    assert len(history.run_ids) == before + 1
    set_variables(SEEDTRUST_RETENTION_SECONDS=None)
    assert run_retention(instance).returned["runs"] == 5


@pytest.mark.parametrize("shadow", [None, "1"], ids=["live", "shadow mode"])
def test_old_events_and_attachments_are_purged_but_not_the_newest_event(
    instance: dg.DagsterInstance,
    sessions: "sessionmaker[Session]",
    monkeypatch: pytest.MonkeyPatch,
    set_variables: SetVariables,
    shadow: str | None,
) -> None:
    set_variables(SEEDTRUST_SHADOW=shadow)
    monkeypatch.setattr(store, "MAX_PURGED_ROWS", 2)

    def event(key: str, status: str, age: timedelta) -> OutgoingEvent:
        return OutgoingEvent(destination="posthog", dedupe_key=key, body={}, status=status, created_at=NOW - age)

    def notification(key: str, status: str, age: timedelta) -> Notification:
        return Notification(
            dedupe_key=key, kind="report", recipient_email="a@example.test", subject="", status=status,
            created_at=NOW - age,
        )  # fmt: skip

    with sessions.begin() as session:
        session.add_all([event(f"sent {number}", "sent", OLD) for number in range(3)])
        session.add_all(
            [event("abandoned", "failed", OLD), event("waits", "queued", OLD), event("recent", "sent", timedelta(1))]
        )
        session.flush()
        session.add(event("newest", "sent", VERY_OLD))
        notifications = [
            notification("failed", "failed", OLD),
            notification("fresh", "failed", timedelta(1)),
            notification("q", "queued", OLD),
        ]
        session.add_all(notifications)
        session.flush()
        session.add_all(
            NotificationAttachment(notification_id=row.id, filename="f", media_type="m", content=b"")
            for row in notifications
        )
    returned = run_retention(instance).returned
    assert (returned["events"], returned["attachments"]) == (4, 1)
    with sessions() as session:
        assert set(session.scalars(select(OutgoingEvent.dedupe_key))) == {"waits", "recent", "newest"}
        kept = select(Notification.dedupe_key).join(
            NotificationAttachment, NotificationAttachment.notification_id == Notification.id
        )
        assert set(session.scalars(kept)) == {"fresh", "q"}
        assert len(session.scalars(select(Notification.id)).all()) == 3
