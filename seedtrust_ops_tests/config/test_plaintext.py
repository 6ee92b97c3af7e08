"""Nothing may leave this machine unencrypted: each setting that would is refused by name, unless it is allowed."""

from typing import Any

import pytest
from sqlalchemy.engine import make_url

from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.config.external_services import (
    CloudFrontSettings,
    HeartbeatSettings,
    HuntingtonSettings,
    InternalApiSettings,
    MailSettings,
    PostHogSettings,
    StorageSettings,
)
from seedtrust_ops.config.plaintext import is_tls_or_loopback, is_verified_or_local
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.errors import ConfigurationError

REMOTE = "http://service.example"
SECRET = "hunter2-and-more"
BANK = {"HUNTINGTON_API_KEY": SECRET, "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct"}
MAIL = {"SMTP_HOST": "smtp.example", "EMAIL_FROM": "escrow@seedtrust.example"}
LOGIN = {"SMTP_USERNAME": "ops", "SMTP_PASSWORD": SECRET}
BUCKET = {"REPORTS_BUCKET": "seedtrust-reports"}
DATABASE = f"postgresql://ops:{SECRET}@db.example/seedtrust"

REFUSED: list[tuple[type[SettingsGroup], dict[str, str], str]] = [
    (HuntingtonSettings, BANK | {"HUNTINGTON_API_URL": REMOTE}, "HUNTINGTON_API_URL"),
    (InternalApiSettings, {"INTERNAL_API_URL": REMOTE, "INTERNAL_API_KEY": SECRET}, "INTERNAL_API_URL"),
    (PostHogSettings, {"POSTHOG_HOST": REMOTE, "POSTHOG_API_KEY": SECRET}, "POSTHOG_HOST"),
    (CloudFrontSettings, {"CLOUDFRONT_URL": REMOTE}, "CLOUDFRONT_URL"),
    (HeartbeatSettings, {"HEARTBEAT_URL": f"{REMOTE}/{SECRET}"}, "HEARTBEAT_URL"),
    (StorageSettings, BUCKET | {"AWS_ENDPOINT_URL": REMOTE}, "AWS_ENDPOINT_URL"),
    (StorageSettings, BUCKET | {"AWS_ENDPOINT_URL_S3": REMOTE}, "AWS_ENDPOINT_URL_S3"),
    (StorageSettings, BUCKET | {"AWS_ENDPOINT_URL_STS": REMOTE}, "AWS_ENDPOINT_URL_STS"),
    (MailSettings, MAIL | {"SMTP_STARTTLS": "0"}, "SMTP_STARTTLS"),
    (MailSettings, MAIL | LOGIN | {"SMTP_STARTTLS": "0"}, "SMTP_STARTTLS"),
    (DatabaseSettings, {"SEEDTRUST_DATABASE_URL": DATABASE}, "SEEDTRUST_DATABASE_URL"),
    (DatabaseSettings, {"DAGSTER_POSTGRES_URL": DATABASE}, "DAGSTER_POSTGRES_URL"),
]
IDS = [f"{variable}-{number}" for number, (_, _, variable) in enumerate(REFUSED)]


@pytest.mark.parametrize(("group", "environment", "variable"), REFUSED, ids=IDS)
def test_plaintext_to_another_machine_is_refused_by_name(
    group: type[SettingsGroup], environment: dict[str, str], variable: str
) -> None:
    for switch in ({}, {"SEEDTRUST_ALLOW_PLAINTEXT": ""}, {"SEEDTRUST_ALLOW_PLAINTEXT": "0"}):
        with pytest.raises(ConfigurationError) as raised:
            group.read(environment | switch)
        assert str(raised.value).startswith(f"{variable} is refused: ")
        assert "SEEDTRUST_ALLOW_PLAINTEXT=1" in str(raised.value)
        assert SECRET not in str(raised.value)
    group.read(environment | {"SEEDTRUST_ALLOW_PLAINTEXT": "1"})


@pytest.mark.parametrize(
    ("group", "environment"),
    [
        (PostHogSettings, {"POSTHOG_HOST": REMOTE}),
        (MailSettings, MAIL),
        (MailSettings, MAIL | LOGIN),
        (MailSettings, MAIL | LOGIN | {"SMTP_PORT": "465", "SMTP_STARTTLS": "0"}),
        (MailSettings, MAIL | {"SMTP_HOST": "127.0.0.1", "SMTP_STARTTLS": "0"}),
        (MailSettings, MAIL | {"SMTP_HOST": "::1", "SMTP_STARTTLS": "0"}),
        (MailSettings, MAIL | {"SMTP_HOST": "LOCALHOST", "SMTP_STARTTLS": "0"}),
        (StorageSettings, BUCKET | {"AWS_ENDPOINT_URL": "https://minio.example"}),
        (StorageSettings, BUCKET | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}),
    ],
)
def test_settings_that_send_nothing_in_the_clear_are_accepted(
    group: type[SettingsGroup], environment: dict[str, str]
) -> None:
    group.read(environment)


def test_all_refused_variables_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        DatabaseSettings.read({"SEEDTRUST_DATABASE_URL": DATABASE, "DAGSTER_POSTGRES_URL": DATABASE})
    assert "SEEDTRUST_DATABASE_URL is refused" in str(raised.value)
    assert "DAGSTER_POSTGRES_URL is refused" in str(raised.value)


def test_misspelled_switch_allows_nothing() -> None:
    with pytest.raises(ConfigurationError, match="SEEDTRUST_ALLOW_PLAINTEXT is invalid"):
        CloudFrontSettings.read({"CLOUDFRONT_URL": REMOTE, "SEEDTRUST_ALLOW_PLAINTEXT": "perhaps"})


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://bank.example", True),
        ("HTTPS://bank.example", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.10", True),
        ("http://[::1]:8000", True),
        ("http://localhost:8000", True),
        ("http://bank.example", False),
        ("http://10.0.0.7", False),
        ("http://0.0.0.0", False),
        ("http://localhost.bank.example", False),
        ("http://127.0.0.1.bank.example", False),
        ("http://127.0.0.1@bank.example", False),
        ("http://[::1", False),
        ("bank.example", False),
        ("", False),
    ],
)
def test_urls_count_as_safe_if_encrypted_or_local(url: str, is_safe: bool) -> None:
    assert is_tls_or_loopback(url) is is_safe


@pytest.mark.parametrize(
    ("url", "libpq", "is_safe"),
    [
        # This machine: loopback, unix sockets, and libpq's default, which is a unix socket.
        ("postgresql://127.0.0.1/d", {}, True),
        ("postgresql://localhost:6432/d", {}, True),
        ("postgresql://[::1]/d", {}, True),
        ("postgresql:///d?host=/run/postgresql", {}, True),
        ("postgresql:///d?host=@abstract", {}, True),
        ("postgresql:///d", {}, True),
        # Another machine: only a verified certificate that is the host's own.
        ("postgresql://db.example/d?sslmode=verify-full", {}, True),
        ("postgresql://db.example/d?sslmode=verify-ca", {}, False),
        ("postgresql://db.example/d?sslmode=require", {}, False),
        ("postgresql://db.example/d?sslmode=prefer", {}, False),
        ("postgresql://db.example/d?sslmode=disable&sslmode=verify-full", {}, False),
        ("postgresql://db.example/d", {}, False),
        ("postgresql://10.0.0.7/d", {}, False),
        ("postgresql:///d?host=db.example", {}, False),
        # Several hosts: each of them.
        ("postgresql:///d?host=127.0.0.1:1&host=/run/postgresql", {}, True),
        ("postgresql:///d?host=127.0.0.1:1&host=db.example:2", {}, False),
        ("postgresql:///d?host=localhost,db.example", {}, False),
        ("postgresql:///d?host=db1.example:1&host=db2.example:2&sslmode=verify-full", {}, True),
        # The query's host and address replace the one before it.
        ("postgresql://localhost/d?host=db.example", {}, False),
        ("postgresql://localhost/d?hostaddr=10.0.0.7", {}, False),
        ("postgresql://db.example/d?hostaddr=127.0.0.1", {}, True),
        ("postgresql:///d?host=localhost,db.example&hostaddr=127.0.0.1,", {}, False),
        ("postgresql:///d?service=production", {}, False),
        # What the URL leaves out, libpq reads from the environment.
        ("postgresql:///d", {"PGHOST": "db.example"}, False),
        ("postgresql:///d", {"PGHOST": "/run/postgresql"}, True),
        ("postgresql://localhost/d", {"PGHOST": "db.example"}, True),
        ("postgresql://localhost/d", {"PGHOSTADDR": "10.0.0.7"}, False),
        ("postgresql://localhost/d", {"PGSERVICE": "production"}, False),
        ("postgresql://db.example/d", {"PGSSLMODE": "verify-full"}, True),
        ("postgresql://db.example/d?sslmode=require", {"PGSSLMODE": "verify-full"}, False),
    ],
)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_database_urls_count_as_safe_if_verified_or_local(
    url: str, libpq: dict[str, Any], is_safe: bool, driver: str
) -> None:
    assert is_verified_or_local(make_url(url).set(drivername=f"postgresql+{driver}"), libpq) is is_safe
