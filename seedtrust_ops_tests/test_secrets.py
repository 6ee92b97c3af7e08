"""No account number or key appears where people or programs can read it, whatever the bank returns or breaks.

The tests search everything that a run writes: its output, every file in its folders, every row of both databases.
"""

import logging
import re
import traceback
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from pyarrow import parquet
from pydantic import SecretStr
from pypdf import PdfReader
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL

from seedtrust_ops.config import FieldKeySettings, Settings
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
from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.reports import generator
from seedtrust_ops.orchestration.dagster_resources import RESOURCES
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.control_client import ReceivedEmail
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops_tests.jobs.job_runner import dagster, execute, process
from seedtrust_ops_tests.jobs.report_requests import request_report, requester_email
from seedtrust_ops_tests.support.all_jobs import (
    LONG_TIMEOUTS,
    create_work_for_every_job,
    run_every_job,
    unexpected_failures,
)
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.echoing_bank import KINDS, echoing_bank
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

API_KEY = "sk-live-4eC39HqLyjWDarjtT1zdp7dc"
PASSWORD = "correct-horse-battery"
# A short number is all of its last four digits, which the platform itself displays, so it is searched for only as a
# separate word that is not that display.
NUMBERS = ["0907", "09073", "730051", *("9163720584462815037"[:length] for length in range(7, 18))]


TABLES_WITH_ACCOUNT_NUMBERS = ("huntington_transactions", "transfer_evidence")


def rows_of(url: URL) -> Iterable[tuple[str, str]]:
    """Yield every row of every table as text, without the columns that store account numbers."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        for schema in ("public", "ops"):
            for table in inspect(connection).get_table_names(schema=schema):
                account_number_columns = "- 'account_number_encrypted' - 'account_number_last4'"
                excluded = account_number_columns if table in TABLES_WITH_ACCOUNT_NUMBERS else ""
                for row in connection.scalars(text(f'select (to_jsonb(t) {excluded})::text from {schema}."{table}" t')):
                    yield f"{schema}.{table}", row
    engine.dispose()


def files_in(folder: Path) -> Iterable[tuple[str, str]]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield str(file), file.read_bytes().decode("latin-1")


def find_leaks(sources: Iterable[tuple[str, str]], secrets: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return where secrets appear, with the surrounding text; an empty list if there is no leak."""
    found = []
    for source, content in sources:
        for secret in secrets:
            pattern = rf"(?<![\w…])(?<!u2026){secret}(?!\w)" if len(secret) < 6 else re.escape(secret)
            found += [
                (source, secret, content[max(0, hit.start() - 80) : hit.end() + 80])
                for hit in re.finditer(pattern, content)
                # Some of the many durations in events have any eight digits by chance.
                if len(secret) > 8 or not re.search(r"\d\.\d*$", content[max(0, hit.start() - 20) : hit.start()])
            ]
    return found


def batch_with_every_response(company: Company) -> tuple[int, list[str]]:
    """Create a batch with every kind of bank response and every number length; return its id and encrypted numbers."""
    case = company.case()
    batch_id = company.batch(case=case)
    for position, number in enumerate(NUMBERS):
        kind = KINDS[position % len(KINDS)]
        request = company.request(case, 100)
        company.transaction(batch_id, request, 100, account_number=number, payee_name=kind, method="ach")
    return batch_id, [transaction.account_number_encrypted for transaction in company.transactions(batch_id)]


def with_password(url: URL) -> str:
    """Return the URL with a password, which this server ignores."""
    return url.set(drivername="postgresql", password=PASSWORD).render_as_string(hide_password=False)


def test_secrets_do_not_leak_with_every_kind_of_bank_response(
    company: Company, bank_environment: dict[str, str], database_url: URL, dagster_home: DagsterHome, tmp_path: Path
) -> None:
    batch_id, tokens = batch_with_every_response(company)
    folder = tmp_path / "working_folder"
    folder.mkdir()
    with echoing_bank() as (url, kinds_sent):
        variables = bank_environment | dagster_home.variables
        variables |= {
            "HUNTINGTON_API_URL": url,
            "HUNTINGTON_API_KEY": API_KEY,
            "SEEDTRUST_DATABASE_URL": with_password(database_url),
            "DAGSTER_POSTGRES_URL": with_password(dagster_home.storage_url),
        }
        sent = execute(batch_id, variables=variables, folder=folder)
        healed = dagster(
            *("job", "execute", "-m", "seedtrust_ops.definitions", "-j", "auto_heal_huntington_batches"),
            variables=variables,
            folder=folder,
        )
    assert sent.returncode == healed.returncode == 0, sent.stderr + healed.stderr
    assert set(kinds_sent) == set(KINDS)
    assert "failed" in company.statuses(batch_id)
    sources = [
        ("output", sent.stdout + sent.stderr + healed.stdout + healed.stderr),
        *files_in(dagster_home.folder),
        *files_in(folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
    ]
    assert {"public.event_logs", "public.runs", "ops.transfer_attempts", "public.huntington_transactions"} <= {
        source for source, _ in sources
    }
    assert find_leaks(sources, [*NUMBERS, *tokens, API_KEY, PASSWORD, bank_environment["SEEDTRUST_FIELD_KEY"]]) == []


DATABASE_FAULTS = {
    "a check constraint": "alter table huntington_transactions add check (status <> 'processing')",
    "a missing column": "alter table huntington_transactions drop column bank_transfer_id cascade",
    "a missing table": "drop table ops.transfer_attempts",
    "a rejecting trigger": (
        "create function reject() returns trigger language plpgsql as"
        " $$ begin raise exception 'rejected: %', new; end $$;"
        " create trigger rejecting before update on huntington_transactions for each row execute function reject()"
    ),
}


@pytest.mark.usefixtures("no_retry_delays")
@pytest.mark.parametrize("fault", [*DATABASE_FAULTS, "the bank's key", "the field key", "the bank", "the database"])
def test_secrets_do_not_leak_from_a_run_that_cannot_send(
    company: Company,
    bank_environment: dict[str, str],
    instance: dg.DagsterInstance,
    database_url: URL,
    dagster_home: DagsterHome,
    set_variables: SetVariables,
    capfd: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    batch_id, tokens = batch_with_every_response(company)
    field_key = bank_environment["SEEDTRUST_FIELD_KEY"]
    variables: dict[str, str | None] = {"SEEDTRUST_DATABASE_URL": with_password(database_url)}
    if fault in DATABASE_FAULTS:
        with company.sessions.begin() as session:
            session.execute(text(DATABASE_FAULTS[fault]))
    else:
        unreachable = "127.0.0.1:9"
        variables |= {
            "the bank's key": {"HUNTINGTON_API_KEY": API_KEY},
            "the field key": {"SEEDTRUST_FIELD_KEY": Fernet.generate_key().decode()},
            "the bank": {"HUNTINGTON_API_URL": f"http://{unreachable}"},
            "the database": {"SEEDTRUST_DATABASE_URL": f"postgresql://ops:{PASSWORD}@{unreachable}/seedtrust"},
        }[fault]
    set_variables(**variables)
    result = process(batch_id, instance)
    # Without the bank the batch waits: nobody knows whether the funding account covers it.
    assert result.success is (fault == "the bank")
    output = capfd.readouterr()
    sources = [
        ("output", output.out + output.err),
        *files_in(dagster_home.folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
    ]
    assert any(source == "public.event_logs" for source, _ in sources)
    secrets = [*NUMBERS, *tokens, API_KEY, PASSWORD, field_key, bank_environment["HUNTINGTON_API_KEY"]]
    assert find_leaks(sources, secrets) == []


@pytest.mark.timeout(600)  # on a busy machine; it takes about 15 s on a quiet one
def test_account_numbers_do_not_leak_from_any_job(
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    company: Company,
    instance: dg.DagsterInstance,
    dagster_home: DagsterHome,
    database_url: URL,
    bank: BankProcess,
    mailbox: MailboxProcess,
    external_services: ExternalServices,
    set_variables: SetVariables,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_variables(**LONG_TIMEOUTS)
    caplog.set_level(logging.DEBUG)
    batch_id = create_work_for_every_job(company)
    transactions = company.transactions(batch_id)
    tokens = [transaction.account_number_encrypted for transaction in transactions]
    numbers = [company.cipher.decrypt(token) for token in tokens]
    assert unexpected_failures(run_every_job(instance, bank, batch_id, company.sessions)) == {}
    output = capfd.readouterr()
    sources = [
        ("output", output.out + output.err),
        ("logs", caplog.text),
        *files_in(dagster_home.folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
        *((f"email {email.id}", text_of_email(email)) for email in mailbox.control.emails()),
        *(
            source
            for key in external_services.storage.keys()  # noqa: SIM118  it is not a dict
            for source in texts_of_file(key, external_services.storage.read(key))
        ),
    ]
    kinds = {source.rpartition(".")[2] for source, _ in sources if source.startswith(("reports/", "balances/"))}
    assert kinds == {"csv", "xlsx", "pdf", "parquet"}
    assert any(source.startswith("email ") for source, _ in sources)
    secrets = [*numbers, *tokens, bank_environment["SEEDTRUST_FIELD_KEY"], bank_environment["HUNTINGTON_API_KEY"]]
    assert find_leaks(sources, secrets) == []


def test_report_links_are_in_the_email_and_nowhere_else(
    jobs_environment: dict[str, str],
    mail_environment: dict[str, str],
    company: Company,
    instance: dg.DagsterInstance,
    dagster_home: DagsterHome,
    database_url: URL,
    mailbox: MailboxProcess,
    external_services: ExternalServices,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A link opens a report to anyone who has it: the outbox, the run's events and its logs are read by more people."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(generator, "MAX_ATTACHMENT_BYTES", 10)
    request_id = request_report(company, "account_balances")
    job = defs.resolve_job_def("report_generation")
    assert job.execute_in_process(instance=instance).success
    (email,) = mailbox.control.emails(requester_email(company, request_id))
    (signature,) = set(re.findall(r"X-Amz-Signature=([0-9a-f]{64})", email.text))
    output = capfd.readouterr()
    sources = [
        ("output", output.out + output.err),
        ("logs", caplog.text),
        *files_in(dagster_home.folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
    ]
    assert {"public.event_logs", "ops.notifications"} <= {source for source, _ in sources}
    assert find_leaks(sources, [signature, "X-Amz-Credential"]) == []


def text_of_email(email: ReceivedEmail) -> str:
    return "\n".join([email.content.decode("latin-1"), email.subject, email.text, email.html])


def texts_of_file(name: str, content: bytes) -> Iterable[tuple[str, str]]:
    """Yield a file's bytes as text, and the text that a program or a person reads in it."""
    yield name, content.decode("latin-1")
    if name.endswith(".xlsx"):
        with ZipFile(BytesIO(content)) as book:
            yield name, "".join(book.read(part).decode("latin-1") for part in book.namelist())
    if name.endswith(".pdf"):
        yield name, "".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)
    if name.endswith(".parquet"):
        yield name, str(parquet.read_table(BytesIO(content)).to_pylist())


SECRET_VARIABLES = {
    "SEEDTRUST_DATABASE_URL": f"postgresql://{API_KEY}:{PASSWORD}@db.example/seedtrust?sslmode=verify-full&sslpassword={PASSWORD}",
    "DAGSTER_POSTGRES_URL": f"postgresql://{API_KEY}:{PASSWORD}@db.example/dagster?sslmode=verify-full",
    "SEEDTRUST_FIELD_KEY": API_KEY,
    "HUNTINGTON_API_KEY": API_KEY,
    "SMTP_USERNAME": API_KEY,
    "SMTP_PASSWORD": PASSWORD,
    "INTERNAL_API_KEY": API_KEY,
    "POSTHOG_API_KEY": API_KEY,
    "HEARTBEAT_URL": f"https://monitor.example/{API_KEY}",
}
OTHER_VARIABLES = {
    "HUNTINGTON_API_URL": "https://bank.example",
    "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct_escrow",
    "SMTP_HOST": "smtp.example",
    "EMAIL_FROM": "escrow@seedtrust.example",
    "REPORTS_BUCKET": "seedtrust-reports",
    "CLOUDFRONT_URL": "https://cdn.example",
    "INTERNAL_API_URL": "https://internal.example",
}


def resource_fields(environment: dict[str, str]) -> dict[str, dict[str, object]]:
    """Return the fields of every resource, with the values for this environment."""
    settings = Settings(environment)
    return {resource.key: resource.from_settings(settings).model_dump() for resource in RESOURCES}


def test_secrets_are_never_fields_of_a_resource() -> None:
    shown = resource_fields(SECRET_VARIABLES | OTHER_VARIABLES)
    assert find_leaks([(key, str(fields)) for key, fields in shown.items()], [API_KEY, PASSWORD]) == []
    assert {key for key, fields in shown.items() if fields["configuration_error"] is not None} == set()


URL_VARIABLES = ["HUNTINGTON_API_URL", "CLOUDFRONT_URL", "INTERNAL_API_URL", "POSTHOG_HOST", "HEARTBEAT_URL"]


@pytest.mark.parametrize("variable", [*URL_VARIABLES, "SMTP_PORT", "REPORTS_BUCKET"])
def test_resources_show_no_part_of_a_url_with_credentials(variable: str) -> None:
    """People put secrets into the wrong variables."""
    environment = SECRET_VARIABLES | OTHER_VARIABLES | {variable: f"https://jobs:{PASSWORD}@host.example/?k={API_KEY}"}
    shown = resource_fields(environment)
    assert find_leaks([(key, str(fields)) for key, fields in shown.items()], [API_KEY, PASSWORD]) == []


def test_settings_of_a_resource_are_secret_or_fields() -> None:
    """A login name is a secret at some mail servers."""
    groups = {
        "cloudfront": CloudFrontSettings,
        "database": DatabaseSettings,
        "field_cipher": FieldKeySettings,
        "heartbeat": HeartbeatSettings,
        "huntington": HuntingtonSettings,
        "internal_api": InternalApiSettings,
        "mail": MailSettings,
        "posthog": PostHogSettings,
        "storage": StorageSettings,
    }
    fields = resource_fields({})
    assert set(groups) == set(fields)
    hidden = {
        f"{key}.{name}"
        for key, group in groups.items()
        for name, field in group.model_fields.items()
        if name not in fields[key] and SecretStr.__name__ not in str(field.annotation)
    }
    assert hidden == {"mail.username"}


def test_leak_search_finds_secrets() -> None:
    sources = [
        ("log", "paid to …0907 and 9163720584462815037"),
        ("row", '{"a": "0907"}'),
        ("trace", traceback.__name__),
    ]
    assert [(source, secret) for source, secret, _ in find_leaks(sources, NUMBERS[:1])] == [("row", "0907")]
    assert {secret for source, secret, _ in find_leaks(sources, NUMBERS) if source == "log"} == set(NUMBERS[3:])
