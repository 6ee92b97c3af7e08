"""Health thresholds and alert addresses: sane defaults, and errors that name an invalid variable."""

import subprocess
import sys

import pytest

from seedtrust_ops.config.alert_thresholds import AlertEmailSettings, AlertThresholds, AlertUrlSettings
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.job_policies import JOB_POLICIES
from seedtrust_ops.severity import Severity


@pytest.mark.parametrize(
    ("text", "emails"),
    [
        ("a@b.test", ("a@b.test",)),
        (" a@b.test , c@d.test,, a@b.test ", ("a@b.test", "c@d.test")),
    ],
)
def test_alert_addresses_are_deduplicated(text: str, emails: tuple[str, ...]) -> None:
    assert AlertEmailSettings.read({"ALERT_EMAILS": text}).emails == emails


@pytest.mark.parametrize(
    ("text", "reason"), [(",", "it contains no address"), ("a@b.test, nobody", "each part must be an email address")]
)
def test_invalid_alert_addresses_are_rejected_without_repeating_them(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as raised:
        AlertEmailSettings.read({"ALERT_EMAILS": text})
    assert "nobody" not in str(raised.value)


SLACK = "slack://TokenA1234/TokenB1234/TokenC1234567890abcdefgh/#ops"


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), (SLACK, 1), (f" {SLACK},\n jsons://pager.example.com/a,b ", 2), (f"{SLACK} {SLACK}", 1)],
)
def test_alert_urls_are_separated_by_commas_or_spaces(text: str, number: int) -> None:
    settings = AlertUrlSettings.read({"ALERT_URLS": text})
    assert len(settings.urls) == number
    assert "TokenA1234" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{SLACK}, telepathy://TokenA1234", "URL 2 of the list is not one of a service that Apprise knows"),
        ("ops@seedtrust.example", "URL 1 of the list is not one of a service that Apprise knows"),
        (f"{SLACK} json://pager.example.com/TokenA1234", "URL 2 of the list sends alerts to another machine unencrypt"),
        (
            "jsons://pager.example.com/TokenA1234?verify=no",
            "URL 1 of the list sends alerts to another machine unencrypt",
        ),
    ],
)
def test_invalid_or_unencrypted_alert_url_is_refused_without_its_secret(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        AlertUrlSettings.read({"ALERT_URLS": text})
    assert "TokenA1234" not in str(raised.value)


def test_unencrypted_alert_url_is_allowed_on_this_machine_and_if_asked_for() -> None:
    assert AlertUrlSettings.read({"ALERT_URLS": "json://localhost:8080/x"}).urls
    assert AlertUrlSettings.read({"ALERT_URLS": "json://pager.example.com", "SEEDTRUST_ALLOW_PLAINTEXT": "1"}).urls


def test_every_threshold_has_a_variable_a_default_and_a_description() -> None:
    for field in AlertThresholds.model_fields.values():
        assert str(field.validation_alias).startswith("SEEDTRUST_HEALTH_")
        assert field.description
        with pytest.raises(ConfigurationError, match=str(field.validation_alias)):
            AlertThresholds.read({str(field.validation_alias): "-1"})


@pytest.mark.parametrize(
    ("grace", "environment", "stuck"),
    [
        (600, {}, (900, 3600)),
        (86_400, {}, (86_700, 89_400)),
        (600, {"SEEDTRUST_HEALTH_BATCH_STUCK_SECONDS": "600"}, (600, 3600)),
        (10, {"SEEDTRUST_HEALTH_TRANSACTIONS_STUCK_SECONDS": "10"}, (310, 10)),
        (600, {"SEEDTRUST_HEALTH_BATCH_STUCK_SECONDS": "599"}, None),
        (86_400, {"SEEDTRUST_HEALTH_TRANSACTIONS_STUCK_SECONDS": "3600"}, None),
    ],
)
def test_nothing_counts_as_stuck_within_the_grace_time(
    grace: float, environment: dict[str, str], stuck: tuple[float, float] | None
) -> None:
    thresholds = AlertThresholds.read(environment)
    if stuck is None:
        (variable,) = environment
        with pytest.raises(ConfigurationError, match=f"{variable} is invalid: it is less than HUNTINGTON_UNKNOWN"):
            thresholds.stuck_after(grace)
    else:
        assert thresholds.stuck_after(grace) == stuck


def test_critical_jobs_always_alert_on_their_first_failure() -> None:
    thresholds = AlertThresholds.read({"SEEDTRUST_HEALTH_MINUTELY_FAILURES": "7"})
    required = {name: thresholds.failures_in_a_row(name, policy.severity, 60) for name, policy in JOB_POLICIES.items()}
    assert {required[name] for name, policy in JOB_POLICIES.items() if policy.severity is Severity.CRITICAL} == {1}
    assert required["auto_heal_huntington_batches"] == 7


def test_job_that_runs_again_in_over_an_hour_alerts_on_its_first_failure() -> None:
    thresholds = AlertThresholds.read({})
    assert [thresholds.failures_in_a_row("retention", Severity.LOW, pause) for pause in (None, 3600, 3601)] == [3, 3, 1]


@pytest.mark.usefixtures("child_processes")
def test_invalid_threshold_does_not_stop_jobs_from_loading() -> None:
    code = "from seedtrust_ops.definitions import defs; print(len(defs.jobs))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"SEEDTRUST_HEALTH_INTERVAL_SECONDS": "often", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
