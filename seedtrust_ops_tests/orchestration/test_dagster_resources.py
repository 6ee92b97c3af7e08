"""Resources show the settings in effect, and no run can change them."""

import json
from typing import Any

import dagster as dg
import pytest

from seedtrust_ops.config import Settings
from seedtrust_ops.errors import RunConfigRefused
from seedtrust_ops.jobs.process_huntington_batch import NAME as PROCESS
from seedtrust_ops.monitoring.failure_summary import summarize_failure
from seedtrust_ops.monitoring.run_events import read_events
from seedtrust_ops.orchestration.dagster_resources import (
    RESOURCES,
    DatabaseResource,
    HuntingtonResource,
    SettingsResource,
    resources,
)
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.external_services.control_client import PostHogServer
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

ENVIRONMENT = {
    "SEEDTRUST_DATABASE_URL": "postgresql://jobs:secret@db.example:6432/seedtrust?sslmode=verify-full",
    "SEEDTRUST_FIELD_KEY": "one,two",
    "HUNTINGTON_API_URL": "https://bank.example",
    "HUNTINGTON_API_KEY": "secret",
    "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct_escrow",
    "SMTP_HOST": "smtp.example",
    "SMTP_USERNAME": "secret",
    "SMTP_PASSWORD": "secret",
    "EMAIL_FROM": "escrow@seedtrust.example",
    "REPORTS_BUCKET": "seedtrust-reports",
    "CLOUDFRONT_URL": "https://cdn.example/health",
    "INTERNAL_API_URL": "https://internal.example",
    "INTERNAL_API_KEY": "secret",
    "POSTHOG_API_KEY": "secret",
    "POSTHOG_HOST": "https://posthog.example",
    "HEARTBEAT_URL": "https://monitor.example/secret",
}
SHOWN: dict[str, dict[str, Any]] = {
    "cloudfront": {"url": "https://cdn.example/health"},
    "database": {"embedded": False, "host": "db.example", "port": 6432, "database": "seedtrust"},
    "field_cipher": {"key_count": 2},
    "heartbeat": {"enabled": True},
    "huntington": {
        "api_url": "https://bank.example",
        "funding_account_id": "acct_escrow",
        "concurrency": 16,
        "timeout_seconds": 10.0,
    },
    "internal_api": {"url": "https://internal.example"},
    "mail": {
        "host": "smtp.example",
        "port": 587,
        "starttls": True,
        "email_from": "escrow@seedtrust.example",
        "has_login": True,
    },
    "posthog": {"host": "https://posthog.example", "enabled": True},
    "storage": {"bucket": "seedtrust-reports"},
}
FIELDS = [(key, field) for key, values in SHOWN.items() for field in values]
OTHER: dict[type, object] = {str: "https://elsewhere.example", int: 1, float: 1.5, bool: False}


def values_in_the_ui(resource: SettingsResource) -> dict[str, Any]:
    """Return what the resource's page shows: the fields' values, without those that are null."""
    loaded = dg.Definitions(resources={resource.key: resource}).get_repository_def().get_top_level_resources()
    values: dict[str, Any] = json.loads(loaded[resource.key].config_schema.default_value_as_json_str)
    return {name: value for name, value in values.items() if value is not None}


def run_using(resource: type[SettingsResource], config: dict[str, Any]) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """Run a job that uses the resource, with this run configuration for it; return the result and the ops that ran."""
    ran: list[str] = []

    @dg.op(required_resource_keys={resource.key})
    def uses_it() -> None:
        ran.append("uses_it")

    @dg.job
    def job() -> None:
        uses_it()

    defs = dg.Definitions(jobs=[job], resources=resources())
    run_config = {"resources": {resource.key: {"config": config}}}
    return defs.resolve_job_def("job").execute_in_process(run_config=run_config, raise_on_error=False), ran


def refusal(result: dg.ExecuteInProcessResult) -> str:
    """Return the original message of the error that ended the run before its first op."""
    (failure,) = [event for event in result.all_events if event.event_type is dg.DagsterEventType.PIPELINE_FAILURE]
    error = failure.job_failure_data.error
    while error.cause is not None:
        error = error.cause
    message: str = error.message
    return message


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.key)
def test_resource_page_shows_the_settings_of_the_environment(resource: type[SettingsResource]) -> None:
    assert values_in_the_ui(resource.from_settings(Settings(ENVIRONMENT))) == SHOWN[resource.key]


@pytest.mark.parametrize(
    ("url", "host"),
    [("postgresql:///seedtrust?host=/run/postgresql", "/run/postgresql"), ("postgresql:///seedtrust", None)],
)
def test_database_host_is_also_read_from_the_query(url: str, host: str | None) -> None:
    shown = values_in_the_ui(DatabaseResource.from_settings(Settings({"SEEDTRUST_DATABASE_URL": url})))
    assert (shown.get("host"), shown["database"]) == (host, "seedtrust")


def test_unset_database_url_shows_the_embedded_server() -> None:
    assert values_in_the_ui(DatabaseResource.from_settings(Settings({}))) == {"embedded": True}


def test_missing_variables_are_named_on_the_resource_page() -> None:
    settings = Settings({"HUNTINGTON_API_URL": "https://bank.example", "HUNTINGTON_CONCURRENCY": "many"})
    (error,) = values_in_the_ui(HuntingtonResource.from_settings(settings)).values()
    for text in ("HUNTINGTON_API_KEY is not set. It is ", "HUNTINGTON_CONCURRENCY is invalid: "):
        assert text in error
    assert "many" not in error


def test_job_runs_without_the_variables_of_other_resources(set_variables: SetVariables) -> None:
    set_variables(**ENVIRONMENT | {"REPORTS_BUCKET": "x", "HUNTINGTON_API_KEY": ""})
    result, ran = run_using(DatabaseResource, {})
    assert result.success
    assert ran == ["uses_it"]


@pytest.mark.parametrize(("key", "field"), FIELDS, ids=[f"{key}.{field}" for key, field in FIELDS])
def test_run_configuration_cannot_change_a_setting(set_variables: SetVariables, key: str, field: str) -> None:
    set_variables(**ENVIRONMENT)
    resource = next(resource for resource in RESOURCES if resource.key == key)
    value = SHOWN[key][field]
    other = OTHER[type(value)] if value is not False else True
    result, ran = run_using(resource, {field: other})
    assert not result.success
    assert ran == []
    message = refusal(result)
    assert RunConfigRefused.__name__ in message
    assert f"gives {field} of resource {key} another value than the environment" in message
    assert "No work was done. Set " in message
    assert str(other) not in message.partition("Set ")[0] or isinstance(other, bool | int)
    result, ran = run_using(resource, {field: value})
    assert result.success
    assert ran == ["uses_it"]


def test_refusal_does_not_repeat_a_secret_that_the_configuration_reads(set_variables: SetVariables) -> None:
    set_variables(**ENVIRONMENT | {"HUNTINGTON_API_KEY": "hunter2-and-more"})
    result, ran = run_using(HuntingtonResource, {"api_url": {"env": "HUNTINGTON_API_KEY"}})
    assert not result.success
    assert ran == []
    assert "Set HUNTINGTON_API_URL in the environment instead." in refusal(result)
    assert not any("hunter2" in str(event) for event in result.all_events)


def test_bank_url_in_a_launch_reaches_no_server_and_sends_nothing(
    company: Company,
    bank: BankProcess,
    bank_environment: dict[str, str],
    instance: dg.DagsterInstance,
    posthog_server: PostHogServer,
) -> None:
    """The PostHog server stands in for a third party's, because it records its requests."""
    posthog_server.clear()
    batch_id = company.batch([100])
    ops = {PROCESS: {"config": {"batch_id": batch_id}}}
    elsewhere = {"huntington": {"config": {"api_url": posthog_server.url}}}
    refused = run(PROCESS, {"ops": ops, "resources": elsewhere}, instance)
    assert not refused.success
    assert refused.attempts == 0
    assert posthog_server.requests() == []
    assert company.batch_row(batch_id).status == "queued"
    summary = summarize_failure(read_events(instance, [refused.run_id], failed=[refused.run_id])[refused.run_id])
    assert (summary.exception_type, summary.meaning) == ("RunConfigRefused", "A job reported a failure.")
    assert summary.message.startswith("This run's configuration gives api_url of resource huntington another value")

    same = {"huntington": {"config": {"api_url": bank.url}}}
    assert run(PROCESS, {"ops": ops, "resources": same}, instance).success
    assert company.batch_row(batch_id).status == "completed"


def test_run_logs_the_settings_it_used(
    company: Company, bank: BankProcess, bank_environment: dict[str, str], instance: dg.DagsterInstance
) -> None:
    batch_id = company.batch([100])
    result = run(PROCESS, {"ops": {PROCESS: {"config": {"batch_id": batch_id}}}}, instance)
    logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    (line,) = [text for text in logged if text.startswith("Resource huntington: ")]
    assert line == (
        f"Resource huntington: api_url: {bank.url}, funding_account_id: {bank.funding_account_id}, concurrency: 16, "
        "timeout_seconds: 30.0."
    )
    assert any(text.startswith("Resource database: ") for text in logged)


def test_sensors_and_schedules_get_the_settings_of_the_environment(set_variables: SetVariables) -> None:
    loaded = resources()
    set_variables(**ENVIRONMENT)
    with dg.build_sensor_context(resources=loaded) as context:
        assert context.resources.huntington.settings.api_url == "https://bank.example"
    with dg.build_schedule_context(resources=loaded) as context:
        assert context.resources.huntington.settings.api_url == "https://bank.example"
