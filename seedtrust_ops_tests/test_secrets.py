"""No account number and no key is anywhere that people or programs can read it, whatever the bank says or breaks.

Everything that a run writes is searched: its output, every file in its folders, and every row of both databases.
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
from pypdf import PdfReader
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.sandbox.mailbox.control_client import KeptLetter
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.jobs.job_runner import dagster, execute, process
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.echoing_bank import KINDS, quoting_bank
from seedtrust_ops_tests.support.every_job import PATIENCE, failures, run_every_job, work_for_every_job
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import (
    Change,
    change,
    impatient,
    jobs_environment,
    outside,
    outside_servers,
)

__all__ = ["change", "impatient", "jobs_environment", "outside", "outside_servers"]

API_KEY = "sk-live-4eC39HqLyjWDarjtT1zdp7dc"
PASSWORD = "correct-horse-battery"
# Four digits of a short number are all of it, and the platform itself shows the last four: it is searched for
# as a word of its own that is not that display.
NUMBERS = ["0907", "09073", "730051", *("9163720584462815037"[:length] for length in range(7, 18))]


def rows_of(url: URL) -> Iterable[tuple[str, str]]:
    """Every row of every table as text, but for the columns in which the platform keeps account numbers."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        for schema in ("public", "ops"):
            for table in inspect(connection).get_table_names(schema=schema):
                kept_apart = "- 'account_number_encrypted' - 'account_number_last4'"
                left_out = kept_apart if table == "huntington_transactions" else ""
                for one in connection.scalars(text(f'select (to_jsonb(t) {left_out})::text from {schema}."{table}" t')):
                    yield f"{schema}.{table}", one
    engine.dispose()


def files_in(folder: Path) -> Iterable[tuple[str, str]]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield str(file), file.read_bytes().decode("latin-1")


def leaks(places: Iterable[tuple[str, str]], secrets: Iterable[str]) -> list[tuple[str, str, str]]:
    """Where a secret is, with what stands around it; an empty list is what everybody wants."""
    found = []
    for place, content in places:
        for secret in secrets:
            pattern = rf"(?<![\w…])(?<!u2026){secret}(?!\w)" if len(secret) < 6 else re.escape(secret)
            found += [
                (place, secret, content[max(0, hit.start() - 80) : hit.end() + 80])
                for hit in re.finditer(pattern, content)
            ]
    return found


def batch_with_every_answer(company: Company) -> tuple[int, list[str]]:
    """A batch with a transfer for each kind of answer and each length of number; and the tokens of its numbers."""
    case = company.case()
    batch_id = company.batch(case=case)
    for place, number in enumerate(NUMBERS):
        kind = KINDS[place % len(KINDS)]
        request = company.request(case, 100)
        company.transaction(batch_id, request, 100, account_number=number, payee_name=kind, method="ach")
    return batch_id, [one.account_number_encrypted for one in company.transactions(batch_id)]


def with_password(url: URL) -> str:
    """The URL with a password that this server does not ask for."""
    return url.set(drivername="postgresql", password=PASSWORD).render_as_string(hide_password=False)


def test_a_run_with_every_kind_of_answer_leaves_no_secret_anywhere(
    company: Company, bank_environment: dict[str, str], database_url: URL, dagster_home: DagsterHome, tmp_path: Path
) -> None:
    batch_id, tokens = batch_with_every_answer(company)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with quoting_bank() as (url, given):
        variables = bank_environment | dagster_home.variables
        variables |= {
            "HUNTINGTON_API_URL": url,
            "HUNTINGTON_API_KEY": API_KEY,
            "SEEDTRUST_DATABASE_URL": with_password(database_url),
            "DAGSTER_POSTGRES_URL": with_password(dagster_home.storage_url),
        }
        done = execute(batch_id, variables=variables, folder=folder)
        healed = dagster(
            *("job", "execute", "-m", "seedtrust_ops.definitions", "-j", "auto_heal_huntington_batches"),
            variables=variables,
            folder=folder,
        )
    assert done.returncode == healed.returncode == 0, done.stderr + healed.stderr
    assert set(given) == set(KINDS)
    assert "failed" in company.statuses(batch_id)
    places = [
        ("output", done.stdout + done.stderr + healed.stdout + healed.stderr),
        *files_in(dagster_home.folder),
        *files_in(folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
    ]
    assert {"public.event_logs", "public.runs", "ops.transfer_attempts", "public.huntington_transactions"} <= {
        place for place, _ in places
    }
    assert leaks(places, [*NUMBERS, *tokens, API_KEY, PASSWORD, bank_environment["SEEDTRUST_FIELD_KEY"]]) == []


BREAKS = {
    "a rule of the platform's database": "alter table huntington_transactions add check (status <> 'processing')",
    "a column that is gone": "alter table huntington_transactions drop column bank_transfer_id cascade",
    "a table that is gone": "drop table ops.transfer_attempts",
    "a trigger that refuses": (
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'refused: %', new; end $$;"
        " create trigger refusing before update on huntington_transactions for each row execute function refuse()"
    ),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("broken", [*BREAKS, "the bank's key", "the field key", "the bank", "the database"])
def test_a_run_that_breaks_leaves_no_secret_anywhere_either(
    company: Company,
    bank_environment: dict[str, str],
    instance: dg.DagsterInstance,
    database_url: URL,
    dagster_home: DagsterHome,
    change: Change,
    capfd: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    batch_id, tokens = batch_with_every_answer(company)
    field_key = bank_environment["SEEDTRUST_FIELD_KEY"]
    variables: dict[str, str | None] = {"SEEDTRUST_DATABASE_URL": with_password(database_url)}
    if broken in BREAKS:
        with company.sessions.begin() as session:
            session.execute(text(BREAKS[broken]))
    else:
        nowhere = "127.0.0.1:9"
        variables |= {
            "the bank's key": {"HUNTINGTON_API_KEY": API_KEY},
            "the field key": {"SEEDTRUST_FIELD_KEY": Fernet.generate_key().decode()},
            "the bank": {"HUNTINGTON_API_URL": f"http://{nowhere}"},
            "the database": {"SEEDTRUST_DATABASE_URL": f"postgresql://ops:{PASSWORD}@{nowhere}/seedtrust"},
        }[broken]
    change(**variables)
    ran = process(batch_id, instance)
    assert not ran.success
    output = capfd.readouterr()
    places = [
        ("output", output.out + output.err),
        *files_in(dagster_home.folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
    ]
    assert any(place == "public.event_logs" for place, _ in places)
    secrets = [*NUMBERS, *tokens, API_KEY, PASSWORD, field_key, bank_environment["HUNTINGTON_API_KEY"]]
    assert leaks(places, secrets) == []


@pytest.mark.timeout(600)  # on a busy machine; it takes about 15 s on a quiet one
def test_no_job_leaves_an_account_number_in_rows_files_letters_or_logs(
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    company: Company,
    instance: dg.DagsterInstance,
    dagster_home: DagsterHome,
    database_url: URL,
    bank: BankProcess,
    mailbox: MailboxProcess,
    outside: OutsideWorld,
    change: Change,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    change(**PATIENCE)
    caplog.set_level(logging.DEBUG)
    batch_id = work_for_every_job(company)
    transactions = company.transactions(batch_id)
    tokens = [one.account_number_encrypted for one in transactions]
    numbers = [company.cipher.decrypt(token) for token in tokens]
    assert failures(run_every_job(instance, bank, batch_id, company.sessions)) == {}
    output = capfd.readouterr()
    places = [
        ("output", output.out + output.err),
        ("logs", caplog.text),
        *files_in(dagster_home.folder),
        *rows_of(dagster_home.storage_url),
        *rows_of(database_url),
        *((f"letter {one.id}", text_of_letter(one)) for one in mailbox.control.letters()),
        *(
            place
            for key in outside.storage.keys()  # noqa: SIM118  it is no dict
            for place in texts_of_file(key, outside.storage.read(key))
        ),
    ]
    kinds = {place.rpartition(".")[2] for place, _ in places if place.startswith(("reports/", "balances/"))}
    assert kinds == {"csv", "xlsx", "pdf", "parquet"}
    assert any(place.startswith("letter ") for place, _ in places)
    secrets = [*numbers, *tokens, bank_environment["SEEDTRUST_FIELD_KEY"], bank_environment["HUNTINGTON_API_KEY"]]
    assert leaks(places, secrets) == []


def text_of_letter(letter: KeptLetter) -> str:
    return "\n".join([letter.content.decode("latin-1"), letter.subject, letter.text, letter.html])


def texts_of_file(name: str, content: bytes) -> Iterable[tuple[str, str]]:
    """What a program or a person reads in a file, beside its bytes."""
    yield name, content.decode("latin-1")
    if name.endswith(".xlsx"):
        with ZipFile(BytesIO(content)) as book:
            yield name, "".join(book.read(part).decode("latin-1") for part in book.namelist())
    if name.endswith(".pdf"):
        yield name, "".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)
    if name.endswith(".parquet"):
        yield name, str(parquet.read_table(BytesIO(content)).to_pylist())


def test_the_search_finds_what_it_is_for() -> None:
    places = [("log", "paid to …0907 and 9163720584462815037"), ("row", '{"a": "0907"}'), ("trace", traceback.__name__)]
    assert [(place, secret) for place, secret, _ in leaks(places, NUMBERS[:1])] == [("row", "0907")]
    assert {secret for place, secret, _ in leaks(places, NUMBERS) if place == "log"} == set(NUMBERS[3:])
