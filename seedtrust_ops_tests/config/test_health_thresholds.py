"""Thresholds and addresses of the health rules: sane by default, and named where they make no sense."""

import subprocess
import sys

import pytest

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.health_thresholds import AlertLetterSettings, WatchingSettings
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
def test_addresses_are_read_once_each(monkeypatch: pytest.MonkeyPatch, text: str, emails: tuple[str, ...]) -> None:
    monkeypatch.setenv("ALERT_EMAILS", text)
    assert AlertLetterSettings.read().emails == emails


@pytest.mark.parametrize(
    ("text", "words"), [(",", "it holds no address"), ("a@b.test, nobody", "each part must be an address")]
)
def test_addresses_that_make_no_sense_are_told_without_being_repeated(
    monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setenv("ALERT_EMAILS", text)
    with pytest.raises(ConfigurationError, match=words) as raised:
        AlertLetterSettings.read()
    assert "nobody" not in str(raised.value)


def test_every_threshold_has_a_variable_and_a_default_and_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in WatchingSettings.model_fields.values():
        assert str(field.validation_alias).startswith("SEEDTRUST_HEALTH_")
        assert field.description
        monkeypatch.setenv(str(field.validation_alias), "-1")
        with pytest.raises(ConfigurationError, match=str(field.validation_alias)):
            WatchingSettings.read()
        monkeypatch.delenv(str(field.validation_alias))
    assert WatchingSettings.read().batch_stuck_seconds == 300


def test_critical_job_is_told_of_at_its_first_failure_whatever_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDTRUST_HEALTH_MINUTELY_FAILURES", "7")
    watching = WatchingSettings.read()
    needed = {name: watching.failures_in_a_row(name, rules.severity) for name, rules in JOB_POLICIES.items()}
    assert {needed[name] for name, rules in JOB_POLICIES.items() if rules.severity is Severity.CRITICAL} == {1}
    assert needed["auto_heal_huntington_batches"] == 7


def test_threshold_that_can_not_be_used_stops_no_job_from_being_loaded() -> None:
    code = "from seedtrust_ops.definitions import definitions; print(len(definitions.jobs))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"SEEDTRUST_HEALTH_INTERVAL_SECONDS": "often", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    get_settings.cache_clear()
