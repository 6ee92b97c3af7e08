"""Health thresholds and alert addresses: sane defaults, and errors that name an invalid variable."""

import subprocess
import sys

import pytest

from seedtrust_ops.config.alert_thresholds import AlertEmailSettings, AlertThresholds
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


def test_every_threshold_has_a_variable_a_default_and_a_description() -> None:
    for field in AlertThresholds.model_fields.values():
        assert str(field.validation_alias).startswith("SEEDTRUST_HEALTH_")
        assert field.description
        with pytest.raises(ConfigurationError, match=str(field.validation_alias)):
            AlertThresholds.read({str(field.validation_alias): "-1"})
    assert AlertThresholds.read({}).batch_stuck_seconds == 300


def test_critical_jobs_always_alert_on_their_first_failure() -> None:
    thresholds = AlertThresholds.read({"SEEDTRUST_HEALTH_MINUTELY_FAILURES": "7"})
    required = {name: thresholds.failures_in_a_row(name, policy.severity) for name, policy in JOB_POLICIES.items()}
    assert {required[name] for name, policy in JOB_POLICIES.items() if policy.severity is Severity.CRITICAL} == {1}
    assert required["auto_heal_huntington_batches"] == 7


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
