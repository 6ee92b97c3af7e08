"""`status` and `health` on real databases: what they report, also if a database or the daemon is down."""

import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorType, ScheduleInstigatorData, SensorInstigatorData
from dagster._core.test_utils import create_run_for_test
from rich.console import Console
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.console import PlainConsole
from seedtrust_ops.cli.main import app
from seedtrust_ops.config import environment_for_child
from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.transfers.evidence import ensure_evidence
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.monitoring.alert_channels import configured_channels, notify_people
from seedtrust_ops.orchestration.dagster_resources import InternalApiResource, MailResource, PostHogResource
from seedtrust_ops.status.collector import collect_status
from seedtrust_ops.status.health import evaluate_health
from seedtrust_ops.status.renderer import print_status
from seedtrust_ops.status.runs import MANUAL_JOBS, automation_of
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.databases import plain_url, temporary_database
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.ticks import TickRecorder, record_heartbeat

UNREACHABLE = "postgresql://somebody:secret@127.0.0.1:1/nothing"


@pytest.fixture
def dagster_environment(
    set_variables: SetVariables, bank_environment: dict[str, str], dagster_home: DagsterHome
) -> None:
    set_variables(**dagster_home.variables)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def as_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    code, output = run(*arguments, "--json")
    return code, json.loads(output)


@pytest.mark.usefixtures("dagster_environment")
def test_status_reports_daemon_jobs_batches_and_alerts(
    company: Company, instance: dg.DagsterInstance, sessions: "sessionmaker[Session]", monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    record_heartbeat(instance, at=now - timedelta(seconds=20))
    minute = now.replace(second=0, microsecond=0)
    heal_schedule = TickRecorder(instance, "auto_heal_huntington_batches_schedule", InstigatorType.SCHEDULE)
    heal_schedule.register(ScheduleInstigatorData("* * * * *", (now - timedelta(days=1)).timestamp()))
    heal_schedule.tick(minute, "SKIPPED")
    batch_sensor = TickRecorder(instance, "huntington_batch_sensor", InstigatorType.SENSOR)
    batch_sensor.register(SensorInstigatorData(min_interval=5), "STOPPED")
    for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED):
        last_id = create_run_for_test(instance, job_name="process_huntington_batch", status=status).run_id
    sent, queued = company.batch([1_000, 2_000]), company.batch([4_000])
    with sessions.begin() as session:
        acquire_lease(session, sent, "run-of-the-batch", 60)
        open_alert(session, "batch_stuck", f"batch {queued}", "HIGH", "It is \x1b[31mstuck\x1b[0m [red]for long[/red].")
    code, output = as_json("status")
    assert code == 0
    assert set(output["dagster"]["heartbeats"]) == {"SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING"}
    jobs = {job["name"]: job for job in output["dagster"]["jobs"]}
    assert datetime.fromisoformat(jobs["auto_heal_huntington_batches"]["next_tick_at"]) == minute + timedelta(minutes=1)
    assert jobs["auto_heal_huntington_batches"]["last_tick_status"] == "SKIPPED"
    processing = jobs["process_huntington_batch"]
    assert (processing["state"], processing["automation"]) == ("STOPPED", "huntington_batch_sensor")
    assert (processing["last_run_status"], processing["last_run_id"]) == ("STARTED", last_id)
    assert jobs["dr_auto_approval"]["last_run_status"] is None
    assert [(running["job"], running["runs"]) for running in output["dagster"]["in_progress"]] == [
        ("process_huntington_batch", 1)
    ]
    assert output["workload"]["batches"] == {"queued": 2}
    in_progress = {batch["batch_id"]: batch for batch in output["workload"]["batches_in_progress"]}
    assert in_progress[sent]["held_by"] == "run-of-the-batch"
    assert (in_progress[sent]["transactions"], in_progress[sent]["cents"]) == (2, 3_000)
    assert in_progress[queued]["held_by"] is None
    assert [alert["subject"] for alert in output["workload"]["alerts"]] == [f"batch {queued}"]
    assert output["health"]["level"] == "down"
    assert any("huntington_batch_sensor is switched off" in reason for reason in output["health"]["reasons"])


@pytest.mark.usefixtures("dagster_environment")
@pytest.mark.parametrize("columns", [80, 120])
def test_status_fits_the_terminal_and_shows_text_literally(
    columns: int, company: Company, instance: dg.DagsterInstance, sessions: "sessionmaker[Session]"
) -> None:
    record_heartbeat(instance)
    company.batch([1_000] * 3)
    with sessions.begin() as session:
        for number in range(3):
            open_alert(
                session,
                "batch_stuck",
                f"batch {number}",
                "HIGH",
                "\x1b[31mIt is stuck\x1b[0m [red]for long[/red]. " * 9,
            )
    report = collect_status()
    console = PlainConsole(width=columns, record=True, force_terminal=False, file=_nowhere())
    print_status(console, report, evaluate_health(report, heartbeat_seconds=120, dev_env=False))
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    shown = "\n".join(lines)
    assert "auto_heal_huntington_batches" in shown
    assert "Open alerts: 3" in shown
    assert "[red]" in shown
    assert "\x1b" not in shown
    # No cell of the job table was truncated.
    assert "…" not in "".join(line for line in lines if "_sensor" in line or "_batch" in line)


def _nowhere() -> Any:
    return Console(quiet=True).file


@pytest.mark.usefixtures("bank_environment")
def test_status_works_before_any_daemon_ran(set_variables: SetVariables, postgres_server: URL) -> None:
    with temporary_database(postgres_server) as url:
        set_variables(DAGSTER_POSTGRES_URL=plain_url(url))
        code, output = as_json("status")
        assert code == 0
        assert "Daemon: never run" in run("status")[1]
    jobs = {job["name"]: job for job in output["dagster"]["jobs"]}
    assert jobs["dr_auto_approval"] | {"state": "RUNNING", "next_tick_at": None} == jobs["dr_auto_approval"]
    assert jobs["job_run_sensor"]["severity"] is None


@pytest.mark.usefixtures("dagster_environment")
def test_health_exit_code_follows_alerts_and_the_kill_switch(
    instance: dg.DagsterInstance, sessions: "sessionmaker[Session]"
) -> None:
    assert run("health")[0] == 2
    record_heartbeat(instance)
    assert run("health") == (0, "SeedTrust Ops is healthy.\n")
    with sessions.begin() as session:
        open_alert(session, "batch_stuck", "batch 3", "HIGH", "It is stuck.")
    code, output = as_json("health")
    assert (code, output["level"], output["exit_code"]) == (1, "degraded", 1)
    run("transfers", "halt", "--reason", "the bank is migrating")
    code, output = as_json("health")
    assert (code, output["level"]) == (2, "down")
    assert "the bank is migrating" in output["reasons"][0]["message"]


@pytest.mark.usefixtures("dagster_environment")
def test_health_says_at_once_that_nobody_can_be_notified(
    instance: dg.DagsterInstance, sessions: "sessionmaker[Session]", set_variables: SetVariables
) -> None:
    record_heartbeat(instance)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        set_variables(
            ALERT_EMAILS="oncall@seedtrust.example",
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(unused.getsockname()[1]),
            EMAIL_FROM="ops@seedtrust.example",
        )
        with sessions.begin() as session:
            open_alert(session, "batch_stuck", "batch 3", "CRITICAL", "It is stuck.")
        channels = configured_channels(MailResource(), InternalApiResource(), PostHogResource())
        notify_people(sessions, channels, now=datetime.now(UTC), digest_of=None)
    code, output = run("health")
    assert code == 2
    assert "Nobody can be notified of 2 urgent alerts: The mail server 127.0.0.1" in " ".join(output.split())
    assert "Nobody can be notified of 2 urgent alerts" in run("status")[1]
    assert "notifications_failing, mail server" in run("alerts")[1]


@pytest.mark.usefixtures("dagster_environment")
def test_silent_daemon_promises_no_ticks_and_off_schedules_are_off(
    instance: dg.DagsterInstance, set_variables: SetVariables
) -> None:
    now = datetime.now(UTC)
    record_heartbeat(instance, at=now - timedelta(seconds=39))
    heal_schedule = TickRecorder(instance, "auto_heal_huntington_batches_schedule", InstigatorType.SCHEDULE)
    heal_schedule.register(ScheduleInstigatorData("0 0 1 1 *", (now - timedelta(days=1)).timestamp()))
    shown = run("status")[1]
    assert "SeedTrust Ops is degraded" in shown
    assert "Daemon: silent for 39s (last heartbeat " in shown or "Daemon: silent for 40s" in shown
    ticks = {line.split()[0]: line.rstrip().split()[-1] for line in shown.splitlines() if "_" in line}
    assert ticks["auto_heal_huntington_batches"] == "unknown"
    # The daemon has run, and has found this schedule off by default.
    assert ticks["dr_auto_approval"] == "off"


@pytest.mark.usefixtures("dagster_environment")
def test_transfers_in_flight_are_counted_by_evidence(
    company: Company, instance: dg.DagsterInstance, sessions: "sessionmaker[Session]"
) -> None:
    assert "Transfers in flight: unknown. The bank's feed was never read." in run("status")[1]
    by_hand, legacy = company.transactions(company.batch([1_000, 2_000]))
    with sessions.begin() as session:
        ensure_evidence(session, [by_hand.id])
        session.execute(text("update huntington_transactions set status = 'failed' where id = :id"), {"id": by_hand.id})
        session.execute(
            text("update huntington_transactions set status = 'processing' where id = :id"), {"id": legacy.id}
        )
        session.execute(
            text(
                "insert into ops.bank_feed_cursors (name, read_up_to, last_read_at) values ('huntington', now(), now())"
            )
        )
    shown = " ".join(run("status")[1].split())
    assert "Transfers in flight: 1 with an unknown outcome, 1 without evidence ($30.00), by the bank's feed" in shown
    with sessions.begin() as session:
        session.execute(
            text(
                "update ops.transfer_evidence set bank_transfer_id = 'tr_1', bank_status = 'accepted', method = 'ach',"
                " bank_created_at = '2026-12-01 15:00+00'"
            )
        )
    assert "1 accepted by the bank, 1 without evidence ($30.00), to settle by Fri, Dec 4," in " ".join(
        run("status")[1].split()
    )


@pytest.mark.usefixtures("child_processes")
def test_unreachable_databases_mean_down_without_importing_dagster() -> None:
    script = (
        "import sys\n"
        "from seedtrust_ops.cli.main import app\n"
        "try:\n    app([sys.argv[1]])\n"
        "except SystemExit as end:\n    print('exit code', end.code)\n"
        "print('dagster', [name for name in sys.modules if name.partition('.')[0].startswith('dagster')])\n"
    )
    variables = environment_for_child({"SEEDTRUST_DATABASE_URL": UNREACHABLE, "DAGSTER_POSTGRES_URL": UNREACHABLE})
    for command, code in (("health", 2), ("status", 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, command], env=variables, capture_output=True, text=True, check=True
        )
        assert f"exit code {code}\n" in done.stdout
        assert "dagster []" in done.stdout
        assert "The database in SEEDTRUST_DATABASE_URL is unavailable" in " ".join(done.stdout.split())
        assert "secret" not in done.stdout + done.stderr


@pytest.mark.usefixtures("dagster_environment")
def test_refused_database_url_means_down_and_is_shown(set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_DATABASE_URL="postgresql://ops:secret@db.example/seedtrust")
    for arguments in (["health"], ["status"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == (2 if arguments == ["health"] else 0)
        assert "SEEDTRUST_DATABASE_URL is refused" in " ".join(result.output.split())
        assert "secret" not in result.output


def test_invalid_variable_means_down(set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_TIMEZONE="Nowhere/Atall")
    result = CliRunner().invoke(app, ["health"])
    assert result.exit_code == 2
    assert result.stderr.startswith("SEEDTRUST_TIMEZONE is invalid")


def test_automation_names_match_the_definitions() -> None:
    repository = defs.get_repository_def()
    launches = {schedule.job_name: schedule.name for schedule in repository.schedule_defs}
    for sensor in repository.sensor_defs:
        launches |= {target.job_name: sensor.name for target in sensor.targets}
    names = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")} - MANUAL_JOBS
    assert {name: automation_of(name) for name in names} == launches
    assert all(automation_of(name) is None for name in MANUAL_JOBS)
