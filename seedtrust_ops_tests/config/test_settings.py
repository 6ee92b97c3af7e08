"""Settings: errors name the missing or invalid variable and its purpose, and no secret is ever shown."""

import ast
import os
import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

import seedtrust_ops
from seedtrust_ops.config import (
    FieldKeySettings,
    HuntingtonSettings,
    LocationSettings,
    Settings,
    TransferSettings,
    dagster_home,
    environment_for_child,
    get_settings,
)
from seedtrust_ops.config.alert_thresholds import AlertEmailSettings, AlertThresholds, WatchdogSettings
from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.config.external_services import (
    CloudFrontSettings,
    HeartbeatSettings,
    InternalApiSettings,
    MailSettings,
    PostHogSettings,
    StorageSettings,
)
from seedtrust_ops.config.plaintext import libpq_parameters
from seedtrust_ops.config.settings import TRANSFER_JOBS, RetentionSettings, ShadowSettings, WebSettings
from seedtrust_ops.config.settings_base import NetworkSettings, SettingsGroup
from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.job_policies import JOB_POLICIES
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops_tests.support.environment import SetVariables

GROUPS = sorted(SettingsGroup.__subclasses__(), key=lambda group: group.__name__)
GROUPS_WITH_DEFAULTS = [
    DatabaseSettings,
    AlertThresholds,
    HeartbeatSettings,
    LocationSettings,
    NetworkSettings,
    PostHogSettings,
    RetentionSettings,
    ShadowSettings,
    TransferSettings,
    WatchdogSettings,
]
SECRET = "hunter2-and-more"
BANK = {
    "HUNTINGTON_API_URL": "https://bank.example",
    "HUNTINGTON_API_KEY": SECRET,
    "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct_escrow",
}
SERVICES = {
    "SMTP_HOST": "smtp.example",
    "SMTP_USERNAME": "ops",
    "SMTP_PASSWORD": SECRET,
    "EMAIL_FROM": "escrow@seedtrust.example",
    "ALERT_EMAILS": "oncall@seedtrust.example",
    "POSTHOG_API_KEY": SECRET,
    "HEARTBEAT_URL": f"https://monitor.example/{SECRET}",
    "REPORTS_BUCKET": "seedtrust-reports",
    "CLOUDFRONT_URL": "https://cdn.example/health",
    "INTERNAL_API_URL": "https://internal.example",
    "INTERNAL_API_KEY": SECRET,
}


@pytest.mark.parametrize(
    ("group", "variable", "purpose"),
    [
        (HuntingtonSettings, "HUNTINGTON_API_URL", "the URL of the Huntington API"),
        (HuntingtonSettings, "HUNTINGTON_API_KEY", "SeedTrust's API key for the Huntington API"),
        (HuntingtonSettings, "HUNTINGTON_FUNDING_ACCOUNT_ID", "the ID of the Huntington account that funds transfers"),
        (FieldKeySettings, "SEEDTRUST_FIELD_KEY", "the Fernet key"),
        (StorageSettings, "REPORTS_BUCKET", "the name of the S3 bucket"),
        (CloudFrontSettings, "CLOUDFRONT_URL", "the URL of a page behind CloudFront"),
        (InternalApiSettings, "INTERNAL_API_URL", "the URL of SeedTrust's internal API"),
        (InternalApiSettings, "INTERNAL_API_KEY", "the API key for SeedTrust's internal API"),
        (MailSettings, "SMTP_HOST", "the hostname of the mail server"),
        (MailSettings, "EMAIL_FROM", "the sender of all email"),
        (AlertEmailSettings, "ALERT_EMAILS", "a comma-separated list of email addresses that receive alerts"),
    ],
)
@pytest.mark.parametrize("empty", [False, True], ids=["unset", "empty"])
def test_missing_variable_is_named_with_its_purpose(
    group: type[SettingsGroup], variable: str, purpose: str, empty: bool
) -> None:
    environment = BANK | SERVICES | {variable: ""}
    if not empty:
        del environment[variable]
    with pytest.raises(ConfigurationError) as raised:
        group.read(environment)
    assert str(raised.value).startswith(f"{variable} is not set. It is {purpose}")


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        HuntingtonSettings.read({})
    assert all(variable in str(raised.value) for variable in BANK)


@pytest.mark.parametrize("group", GROUPS_WITH_DEFAULTS)
def test_groups_with_defaults_need_no_variable(group: type[SettingsGroup]) -> None:
    group.read({})


def test_every_variable_has_a_description() -> None:
    fields = [field for group in GROUPS for field in group.model_fields.values()]
    assert [field.validation_alias for field in fields if not field.description] == []
    assert all(str(field.validation_alias).isupper() for field in fields)


@pytest.mark.parametrize(
    ("group", "variable", "value", "reason"),
    [
        (LocationSettings, "DEV_ENV", "perhaps", "boolean"),
        (LocationSettings, "SEEDTRUST_TIMEZONE", "Mars/Olympus", "it is not a known time zone"),
        (LocationSettings, "SEEDTRUST_TIMEZONE", "../../etc/passwd", "it is not a known time zone"),
        (
            DatabaseSettings,
            "SEEDTRUST_DATABASE_URL",
            "mysql://u:p@h/d",
            "it is a mysql URL, but only PostgreSQL is supported",
        ),
        (DatabaseSettings, "DAGSTER_POSTGRES_URL", "sqlite:///runs.db", "it is a sqlite URL"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", "seedtrust", "it is not a database URL"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", "postgresql://h:port/d", "it is not a database URL"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", "postgresql://h/d?port=port", "it is not a database URL"),
        (
            DatabaseSettings,
            "SEEDTRUST_DATABASE_URL",
            "postgresql:///d?host=a:1&port=2,3",
            "it is not a database URL",
        ),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "bank.example", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "ftp://bank.example", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://bank..example", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", f"https://{'x' * 64}", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://bank:99999", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://bank/?key=1", "must not contain a user, password, query"),
        (HuntingtonSettings, "HUNTINGTON_CONCURRENCY", "0", "greater than or equal to 1"),
        (HuntingtonSettings, "HUNTINGTON_CONCURRENCY", "many", "valid integer"),
        (HuntingtonSettings, "HUNTINGTON_TIMEOUT_SECONDS", "-1", "greater than 0"),
        (HuntingtonSettings, "HUNTINGTON_TIMEOUT_SECONDS", "inf", "finite"),
        (TransferSettings, "HUNTINGTON_LEASE_SECONDS", "nan", "finite"),
        (TransferSettings, "HUNTINGTON_UNKNOWN_GRACE_SECONDS", "soon", "valid number"),
        (TransferSettings, "SEEDTRUST_TRANSFERS_HALTED", "for now", "boolean"),
        (ShadowSettings, "SEEDTRUST_SHADOW", "perhaps", "boolean"),
        (ShadowSettings, "SEEDTRUST_SHADOW_JOBS", "example, exampel", "an unknown job at position 2; the jobs are"),
        (ShadowSettings, "SEEDTRUST_SHADOW_JOBS", "example, retention", "retention runs live in shadow mode too"),
        (
            ShadowSettings,
            "SEEDTRUST_SHADOW_JOBS",
            "example, process_huntington_batch",
            "it has process_huntington_batch without auto_heal_huntington_batches; both must be in shadow mode",
        ),
        (
            ShadowSettings,
            "SEEDTRUST_SHADOW_JOBS",
            "auto_heal_huntington_batches",
            "it has auto_heal_huntington_batches without process_huntington_batch; both must be in shadow mode",
        ),
        (WebSettings, "SEEDTRUST_WEB_HOSTS", "*", "host names only"),
        (WebSettings, "SEEDTRUST_WEB_HOSTS", "a.example, https://b.example", "host names only"),
        (WebSettings, "SEEDTRUST_WEB_HOSTS", "operations.example:443", "host names only"),
        (RetentionSettings, "SEEDTRUST_RETENTION_DAYS", "0", "greater than or equal to 1"),
        (WatchdogSettings, "SEEDTRUST_WATCHDOG_INTERVAL_SECONDS", "61", "less than or equal to 60"),
        (WatchdogSettings, "SEEDTRUST_WATCHDOG_HEARTBEAT_SECONDS", "44", "greater than or equal to 45"),
        (PostHogSettings, "POSTHOG_HOST", "posthog.example", "starts with http:// or https://"),
        (HeartbeatSettings, "HEARTBEAT_URL", "monitor.example", "starts with http:// or https://"),
        (FieldKeySettings, "SEEDTRUST_FIELD_KEY", " , ", "it contains no key"),
        (StorageSettings, "REPORTS_BUCKET", "No Bucket", "3 to 63 lowercase letters"),
        (CloudFrontSettings, "CLOUDFRONT_URL", "cdn.example", "starts with http:// or https://"),
        (InternalApiSettings, "INTERNAL_API_URL", "https://u:p@internal.example", "must not contain a user, password"),
        (InternalApiSettings, "INTERNAL_API_URL", "https://api..internal.example", "not a URL that starts with http"),
        (InternalApiSettings, "INTERNAL_API_KEY", "two words", "printable ASCII"),
    ],
)
def test_invalid_value_is_named_with_the_reason_and_its_purpose(
    group: type[SettingsGroup], variable: str, value: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        group.read(BANK | SERVICES | {variable: value})
    message = str(raised.value)
    assert message.startswith(f"{variable} is invalid: ")
    assert reason in message
    assert "It is " in message


@pytest.mark.parametrize(
    ("group", "variable", "value"),
    [
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", f"mysql://user:{SECRET}@host/db"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", f"postgresql://user:{SECRET}/x@host:{SECRET}/db"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", SECRET),
        (DatabaseSettings, "DAGSTER_POSTGRES_URL", f"postgresql://user@host:{SECRET}"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", f"https://user:{SECRET}@bank.example"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", SECRET),
        (HuntingtonSettings, "HUNTINGTON_API_KEY", f"{SECRET}\nsecond line"),
        (HuntingtonSettings, "HUNTINGTON_API_KEY", f"{SECRET}é"),
        (HuntingtonSettings, "HUNTINGTON_CONCURRENCY", SECRET),
    ],
)
def test_errors_never_repeat_a_value_that_may_be_secret(group: type[SettingsGroup], variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        group.read(BANK | SERVICES | {variable: value})
    error: BaseException | None = raised.value
    shown = []
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert variable in shown[0]
    assert not any(SECRET in text for text in shown)


def test_settings_never_show_a_secret() -> None:
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    urls = dict.fromkeys(
        ("SEEDTRUST_DATABASE_URL", "DAGSTER_POSTGRES_URL"), f"postgresql://user:{SECRET}@host/db?sslmode=verify-full"
    )
    environment = BANK | SERVICES | urls | {"SEEDTRUST_FIELD_KEY": ",".join(keys)}
    groups = [group.read(environment) for group in GROUPS]
    databases = DatabaseSettings.read(environment)
    shown = [repr(settings) + str(settings) + settings.model_dump_json() for settings in groups]
    shown += [repr(databases.application_url), str(databases.dagster_url), repr(Settings(environment))]
    assert not any(secret in text for text in shown for secret in [SECRET, *keys])


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_database_urls_get_the_driver_of_their_reader(scheme: str) -> None:
    url = f"{scheme}://user:p%40ss@db.example:6432/seedtrust?sslmode=verify-full"
    settings = DatabaseSettings.read({"SEEDTRUST_DATABASE_URL": url, "DAGSTER_POSTGRES_URL": url})
    for read, driver in ((settings.application_url, "psycopg"), (settings.dagster_url, "psycopg2")):
        assert read is not None
        assert read.drivername == f"postgresql+{driver}"
        assert (read.username, read.password, read.host, read.port) == ("user", "p@ss", "db.example", 6432)
        assert (read.database, dict(read.query)) == ("seedtrust", {"sslmode": "verify-full"})


def test_missing_database_url_means_the_embedded_server() -> None:
    settings = DatabaseSettings.read({})
    assert (settings.application_url, settings.dagster_url) == (None, None)


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("0", False), ("1", True), ("true", True)])
@pytest.mark.parametrize("variable", ["DEV_ENV", "SEEDTRUST_TRANSFERS_HALTED", "SEEDTRUST_SHADOW"])
def test_switches_are_off_unless_set(variable: str, value: str | None, expected: bool) -> None:
    settings = Settings({} if value is None else {variable: value})
    switches = {
        "DEV_ENV": settings.location.dev_env,
        "SEEDTRUST_TRANSFERS_HALTED": settings.transfers.halted,
        "SEEDTRUST_SHADOW": settings.shadow.all_jobs,
    }
    assert switches[variable] is expected


@pytest.mark.parametrize(
    ("environment", "covered"),
    [
        ({}, set()),
        ({"SEEDTRUST_SHADOW_JOBS": ""}, set()),
        (
            {"SEEDTRUST_SHADOW_JOBS": " report_generation ,, dr_auto_approval,"},
            {"report_generation", "dr_auto_approval"},
        ),
        ({"SEEDTRUST_SHADOW_JOBS": ",".join(TRANSFER_JOBS)}, set(TRANSFER_JOBS)),
        ({"SEEDTRUST_SHADOW": "1", "SEEDTRUST_SHADOW_JOBS": "report_generation"}, set(JOB_POLICIES) - {"retention"}),
        ({"SEEDTRUST_SHADOW": "0", "SEEDTRUST_SHADOW_JOBS": "report_generation"}, {"report_generation"}),
    ],
)
def test_shadow_mode_covers_the_listed_jobs_or_all(environment: dict[str, str], covered: set[str]) -> None:
    shadow = Settings(environment).shadow
    assert {job for job in JOB_POLICIES if shadow.covers(job)} == covered


def test_defaults_are_those_of_the_design() -> None:
    read = Settings(BANK | {"SEEDTRUST_DATABASE_URL": "postgresql://localhost/seedtrust"})
    assert read.location.timezone == "America/New_York"
    assert (read.huntington.concurrency, read.huntington.timeout_seconds) == (16, 10)
    assert (read.transfers.lease_seconds, read.transfers.unknown_grace_seconds) == (60, 600)


def test_bank_url_and_key_are_trimmed() -> None:
    untrimmed = {"HUNTINGTON_API_URL": "https://bank.example/", "HUNTINGTON_API_KEY": f"{SECRET}\n"}
    read = HuntingtonSettings.read(BANK | untrimmed)
    assert (read.api_url, read.api_key.get_secret_value()) == ("https://bank.example", SECRET)


def test_field_keys_are_read_newest_first() -> None:
    new, old = (Fernet.generate_key().decode() for _ in range(2))
    keys = FieldKeySettings.read({"SEEDTRUST_FIELD_KEY": f" {new} , {old},"}).keys
    assert [key.get_secret_value() for key in keys] == [new, old]
    assert Fernet(new).decrypt(FernetFieldCipher(keys).encrypt("a number")) == b"a number"


def test_settings_are_frozen_after_reading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LocationSettings.read({}).dev_env = True


def test_missing_variable_stops_only_the_group_that_needs_it() -> None:
    settings = Settings({})
    with pytest.raises(ConfigurationError):
        _ = settings.huntington
    assert settings.transfers.halted is False


def test_settings_are_read_once_until_the_variables_are_set_again(
    monkeypatch: pytest.MonkeyPatch, set_variables: SetVariables
) -> None:
    set_variables(DEV_ENV="1")
    assert get_settings().location.dev_env is True
    monkeypatch.setenv("DEV_ENV", "0")
    assert get_settings().location.dev_env is True
    set_variables(DEV_ENV="0")
    assert get_settings().location.dev_env is False


def test_dagster_home_is_the_folder_with_dagster_yaml(set_variables: SetVariables, tmp_path: Path) -> None:
    set_variables(DAGSTER_HOME=None)
    assert (dagster_home() / "dagster.yaml").is_file()
    set_variables(DAGSTER_HOME=str(tmp_path))
    with pytest.raises(ConfigurationError, match="Set DAGSTER_HOME to the folder that contains it"):
        dagster_home()
    (tmp_path / "dagster.yaml").touch()
    assert dagster_home() == tmp_path.resolve()


def test_child_environment_merges_defaults_ours_and_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_ENV", "ours")
    monkeypatch.setenv("SEEDTRUST_TIMEZONE", "ours")
    monkeypatch.delenv("SMTP_HOST", raising=False)
    child = environment_for_child(
        {"DEV_ENV": "change"}, defaults={"SEEDTRUST_TIMEZONE": "default", "SMTP_HOST": "default"}
    )
    assert [child[name] for name in ("DEV_ENV", "SEEDTRUST_TIMEZONE", "SMTP_HOST")] == ["change", "ours", "default"]
    assert os.environ["DEV_ENV"] == "ours"


def test_configuration_errors_are_shown_to_people_and_not_retried() -> None:
    assert issubclass(ConfigurationError, SeedTrustError)
    assert ConfigurationError.retry_may_help is False


def test_environment_is_read_only_by_config() -> None:
    package = Path(seedtrust_ops.__file__).parent
    readers = {"environ", "environb", "getenv", "getenvb", "putenv", "expandvars"}
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = {
                ast.Attribute: lambda node: [node.attr],
                ast.ImportFrom: lambda node: [name.name for name in node.names],
            }.get(type(node), lambda _: [])(node)
            if readers & set(names):
                found.append(str(file.relative_to(package)))
    assert set(found) == {"config/settings.py"}


def test_settings_are_reloaded_in_tests_by_one_helper_only() -> None:
    """A test that reloads them by itself forgets the engine, or the restoring."""
    root = Path(seedtrust_ops.__file__).parents[1]
    reload = re.compile(r"(get_settings|_engine)\.cache_clear")
    files = [*(root / "seedtrust_ops_tests").rglob("*.py"), *(root / "bench").rglob("*.py")]
    found = {str(file.relative_to(root)) for file in files if reload.search(file.read_text())}
    assert found == {"seedtrust_ops_tests/support/environment.py"}


@pytest.mark.parametrize(
    ("text", "host", "port", "attributes"),
    [
        ("postgresql://u:p@h1:5432,h2:5433/d", "h1,h2", "5432,5433", "read-write"),
        ("postgresql://h1,h2:6432/d?application_name=x", "h1,h2", ",6432", "read-write"),
        ("postgresql+psycopg://u@/d?host=h1:1&host=h2:2", "h1,h2", "1,2", "read-write"),
        ("postgresql://h1,h2/d?target_session_attrs=primary", "h1,h2", ",", "primary"),
        ("postgresql://u:a,b@h1/d", "h1", None, None),
    ],
)
def test_database_url_with_several_hosts_connects_to_the_one_that_accepts_writes(
    text: str, host: str, port: str | None, attributes: str | None
) -> None:
    settings = DatabaseSettings.read(
        {"SEEDTRUST_DATABASE_URL": text, "DAGSTER_POSTGRES_URL": text, "SEEDTRUST_ALLOW_PLAINTEXT": "1"}
    )
    for url in (settings.application_url, settings.dagster_url):
        assert url is not None
        parameters = libpq_parameters(url)
        assert parameters["dbname"] == "d"
        assert [parameters.get(name) for name in ("host", "port", "target_session_attrs")] == [host, port, attributes]
