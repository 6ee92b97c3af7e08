"""The environment: what is missing or wrong is named with its purpose, and no secret is ever shown.

Each test reads a group anew from variables of its own; this machine's are out of sight.
"""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

import seedtrust_ops
from seedtrust_ops.config import (
    Environment,
    FieldKeySettings,
    HuntingtonSettings,
    LocationSettings,
    TransferSettings,
    dagster_home,
    environment_for_child,
    get_settings,
)
from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.config.external_services import CloudFrontSettings, InternalApiSettings, StorageSettings
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.resources.field_encryption import FernetFieldCipher

GROUPS = [
    LocationSettings,
    DatabaseSettings,
    HuntingtonSettings,
    TransferSettings,
    FieldKeySettings,
    StorageSettings,
    CloudFrontSettings,
    InternalApiSettings,
]
SECRET = "hunter2-and-more"
BANK = {
    "HUNTINGTON_API_URL": "https://bank.example",
    "HUNTINGTON_API_KEY": SECRET,
    "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct_escrow",
}
OUTSIDE = {
    "REPORTS_BUCKET": "seedtrust-reports",
    "CLOUDFRONT_URL": "https://cdn.example/health",
    "INTERNAL_API_URL": "https://internal.example",
    "INTERNAL_API_KEY": SECRET,
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None of the project's variables is set."""
    for group in GROUPS:
        for field in group.model_fields.values():
            monkeypatch.delenv(str(field.validation_alias), raising=False)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("group", "variable", "purpose"),
    [
        (HuntingtonSettings, "HUNTINGTON_API_URL", "the address of the Huntington transfer gateway"),
        (HuntingtonSettings, "HUNTINGTON_API_KEY", "the key that the Huntington transfer gateway knows SeedTrust by"),
        (HuntingtonSettings, "HUNTINGTON_FUNDING_ACCOUNT_ID", "the account at Huntington that transfers are paid from"),
        (FieldKeySettings, "SEEDTRUST_FIELD_KEY", "the Fernet key"),
        (StorageSettings, "REPORTS_BUCKET", "the name of the S3 bucket"),
        (CloudFrontSettings, "CLOUDFRONT_URL", "the address of a page behind CloudFront"),
        (InternalApiSettings, "INTERNAL_API_URL", "the address of SeedTrust's internal API"),
        (InternalApiSettings, "INTERNAL_API_KEY", "the key that SeedTrust's internal API knows this project by"),
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_variable_is_named_with_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch, group: type[SettingsGroup], variable: str, purpose: str, empty: bool
) -> None:
    set_all(monkeypatch, BANK | OUTSIDE)
    monkeypatch.delenv(variable, raising=False)
    if empty:
        monkeypatch.setenv(variable, "")
    with pytest.raises(ConfigurationError) as raised:
        group.read()
    assert str(raised.value).startswith(f"{variable} is not set. It is {purpose}")


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        HuntingtonSettings.read()
    assert all(variable in str(raised.value) for variable in BANK)


@pytest.mark.parametrize("group", [LocationSettings, DatabaseSettings, TransferSettings])
def test_groups_with_sound_defaults_need_no_variable(group: type[SettingsGroup]) -> None:
    group.read()


def test_every_variable_has_a_purpose_to_be_told_with() -> None:
    fields = [field for group in GROUPS for field in group.model_fields.values()]
    assert [field.validation_alias for field in fields if not field.description] == []
    assert all(str(field.validation_alias).isupper() for field in fields)


@pytest.mark.parametrize(
    ("group", "variable", "value", "reason"),
    [
        (LocationSettings, "DEV_ENV", "perhaps", "boolean"),
        (LocationSettings, "SEEDTRUST_TIMEZONE", "Mars/Olympus", "no time zone is called that"),
        (LocationSettings, "SEEDTRUST_TIMEZONE", "../../etc/passwd", "no time zone is called"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", "mysql://u:p@h/d", "it names mysql, and only PostgreSQL will do"),
        (DatabaseSettings, "DAGSTER_POSTGRES_URL", "sqlite:///runs.db", "it names sqlite"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", "seedtrust", "it is not a database URL"),
        (DatabaseSettings, "SEEDTRUST_DATABASE_URL", "postgresql://h:port/d", "it is not a database URL"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "bank.example", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "ftp://bank.example", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://bank:99999", "starts with http:// or https://"),
        (HuntingtonSettings, "HUNTINGTON_API_URL", "https://bank/?key=1", "no user, password, query"),
        (HuntingtonSettings, "HUNTINGTON_CONCURRENCY", "0", "greater than or equal to 1"),
        (HuntingtonSettings, "HUNTINGTON_CONCURRENCY", "many", "valid integer"),
        (HuntingtonSettings, "HUNTINGTON_TIMEOUT_SECONDS", "-1", "greater than 0"),
        (HuntingtonSettings, "HUNTINGTON_TIMEOUT_SECONDS", "inf", "finite"),
        (TransferSettings, "HUNTINGTON_LEASE_SECONDS", "nan", "finite"),
        (TransferSettings, "HUNTINGTON_UNKNOWN_GRACE_SECONDS", "soon", "valid number"),
        (TransferSettings, "SEEDTRUST_TRANSFERS_HALTED", "for now", "boolean"),
        (FieldKeySettings, "SEEDTRUST_FIELD_KEY", " , ", "it holds no key"),
        (StorageSettings, "REPORTS_BUCKET", "No Bucket", "3 to 63 lower-case letters"),
        (CloudFrontSettings, "CLOUDFRONT_URL", "cdn.example", "starts with http:// or https://"),
        (InternalApiSettings, "INTERNAL_API_URL", "https://u:p@internal.example", "no user, password"),
        (InternalApiSettings, "INTERNAL_API_KEY", "two words", "printable ASCII"),
    ],
)
def test_a_bad_value_is_named_with_what_is_wrong_and_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch, group: type[SettingsGroup], variable: str, value: str, reason: str
) -> None:
    set_all(monkeypatch, BANK | OUTSIDE | {variable: value})
    with pytest.raises(ConfigurationError) as raised:
        group.read()
    sentence = str(raised.value)
    assert sentence.startswith(f"{variable} can't be used: ")
    assert reason in sentence
    assert "It is " in sentence


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
def test_no_error_repeats_a_value_that_may_be_secret(
    monkeypatch: pytest.MonkeyPatch, group: type[SettingsGroup], variable: str, value: str
) -> None:
    set_all(monkeypatch, BANK | OUTSIDE | {variable: value})
    with pytest.raises(ConfigurationError) as raised:
        group.read()
    error: BaseException | None = raised.value
    shown = []
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert variable in shown[0]
    assert not any(SECRET in text for text in shown)


def test_no_settings_show_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    urls = dict.fromkeys(("SEEDTRUST_DATABASE_URL", "DAGSTER_POSTGRES_URL"), f"postgresql://user:{SECRET}@host/db")
    set_all(monkeypatch, BANK | OUTSIDE | urls | {"SEEDTRUST_FIELD_KEY": ",".join(keys)})
    groups = [group.read() for group in GROUPS]
    databases = DatabaseSettings.read()
    shown = [repr(one) + str(one) + one.model_dump_json() for one in groups]
    shown += [repr(databases.application_url), str(databases.dagster_url), repr(get_settings())]
    assert not any(secret in text for text in shown for secret in [SECRET, *keys])


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_a_database_url_gets_the_driver_that_its_reader_uses_whatever_people_write(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    url = f"{scheme}://user:p%40ss@db.example:6432/seedtrust?sslmode=require"
    set_all(monkeypatch, {"SEEDTRUST_DATABASE_URL": url, "DAGSTER_POSTGRES_URL": url})
    settings = DatabaseSettings.read()
    for read, driver in ((settings.application_url, "psycopg"), (settings.dagster_url, "psycopg2")):
        assert read is not None
        assert read.drivername == f"postgresql+{driver}"
        assert (read.username, read.password, read.host, read.port) == ("user", "p@ss", "db.example", 6432)
        assert (read.database, dict(read.query)) == ("seedtrust", {"sslmode": "require"})


def test_no_database_url_stands_for_the_embedded_server() -> None:
    settings = DatabaseSettings.read()
    assert (settings.application_url, settings.dagster_url) == (None, None)


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("0", False), ("1", True), ("true", True)])
@pytest.mark.parametrize("variable", ["DEV_ENV", "SEEDTRUST_TRANSFERS_HALTED"])
def test_a_switch_is_off_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, expected: bool
) -> None:
    if value is not None:
        monkeypatch.setenv(variable, value)
    read = get_settings().location.dev_env if variable == "DEV_ENV" else get_settings().transfers.halted
    assert read is expected


def test_the_design_s_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, BANK)
    read = Environment()
    assert read.location.timezone == "America/New_York"
    assert (read.huntington.concurrency, read.huntington.timeout_seconds) == (16, 10)
    assert (read.transfers.lease_seconds, read.transfers.unknown_grace_seconds) == (60, 600)


def test_the_bank_s_address_and_key_are_taken_without_what_people_leave_at_their_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_all(monkeypatch, BANK | {"HUNTINGTON_API_URL": "https://bank.example/", "HUNTINGTON_API_KEY": f"{SECRET}\n"})
    read = HuntingtonSettings.read()
    assert (read.api_url, read.api_key.get_secret_value()) == ("https://bank.example", SECRET)


def test_keys_are_read_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = (Fernet.generate_key().decode() for _ in range(2))
    monkeypatch.setenv("SEEDTRUST_FIELD_KEY", f" {new} , {old},")
    keys = FieldKeySettings.read().keys
    assert [key.get_secret_value() for key in keys] == [new, old]
    assert Fernet(new).decrypt(FernetFieldCipher(keys).encrypt("a number")) == b"a number"


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LocationSettings.read().dev_env = True


def test_a_group_is_read_when_it_is_first_asked_for_so_that_what_one_job_lacks_stops_no_other() -> None:
    read = get_settings()
    with pytest.raises(ConfigurationError):
        _ = read.huntington
    assert read.transfers.halted is False
    assert read is get_settings()


def test_dagster_home_is_the_folder_with_dagster_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (dagster_home() / "dagster.yaml").is_file()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    get_settings.cache_clear()
    with pytest.raises(ConfigurationError, match="set DAGSTER_HOME to the folder that holds it"):
        dagster_home()
    (tmp_path / "dagster.yaml").touch()
    assert dagster_home() == tmp_path.resolve()


def test_a_child_gets_our_variables_over_defaults_and_under_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"DEV_ENV": "ours", "SEEDTRUST_TIMEZONE": "ours"})
    child = environment_for_child(
        {"DEV_ENV": "change"}, defaults={"SEEDTRUST_TIMEZONE": "default", "SMTP_HOST": "default"}
    )
    assert [child[name] for name in ("DEV_ENV", "SEEDTRUST_TIMEZONE", "SMTP_HOST")] == ["change", "ours", "default"]
    assert os.environ["DEV_ENV"] == "ours"


def test_configuration_errors_are_for_people() -> None:
    assert issubclass(ConfigurationError, SeedTrustError)
    assert ConfigurationError.retry_may_help is False


def test_no_file_but_config_reads_the_environment() -> None:
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
