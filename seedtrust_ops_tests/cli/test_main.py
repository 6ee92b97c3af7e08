"""The command line: errors are one line with exit code 1, and `--help` imports nothing slow."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.config import dagster_home
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops_tests.support.databases import plain_url, temporary_database
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("child_processes")
def test_help_imports_nothing_slow() -> None:
    loaded = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, seedtrust_ops.cli.main;"
            "print({'dagster', 'pandas', 'sqlalchemy', 'rich.live'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "set()"


def test_error_is_one_line_without_traceback(set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_DATABASE_URL="mysql://somewhere/else")
    code, output, errors = run("migrate")
    assert code == 1
    assert output == ""
    assert errors.startswith("SEEDTRUST_DATABASE_URL is invalid")
    assert "Traceback" not in errors
    assert errors.count("\n") == 1


def test_error_in_a_group_is_printed_once(set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_DATABASE_URL="postgresql://somebody:secret@127.0.0.1:1/nothing")
    code, _, errors = run("transfers", "resume")
    assert code == 1
    assert errors.count("is unavailable") == 1
    assert "secret" not in errors


def test_migrate_reports_what_it_did(set_variables: SetVariables, postgres_server: object) -> None:
    with temporary_database(postgres_server) as url:  # type: ignore[arg-type]
        set_variables(SEEDTRUST_DATABASE_URL=plain_url(url))
        code, _, errors = run("migrate")
        assert code == 1
        assert "migrate --platform" in errors
        code, output, _ = run("migrate", "--platform")
        assert code == 0
        assert "Created the platform's tables" in output


@pytest.mark.usefixtures("bank_environment")
def test_transfers_are_halted_and_resumed() -> None:
    code, output, _ = run("transfers", "halt", "--reason", "the bank is migrating")
    assert code == 0
    assert "the bank is migrating" in output
    assert run("transfers", "resume")[1] == "Transfers resumed.\n"
    assert run("transfers", "resume")[1] == "Transfers were not halted. Nothing was changed.\n"


@pytest.mark.usefixtures("bank_environment")
def test_seed_refuses_a_database_with_other_data(company: Company) -> None:
    company.case()
    code, _, errors = run("seed", "--cases", "10")
    assert code == 1
    assert "that `seed` did not create" in errors


def test_dagster_home_without_dagster_yaml_is_named(set_variables: SetVariables, tmp_path: Path) -> None:
    set_variables(DAGSTER_HOME=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"No dagster\.yaml in"):
        dagster_home()
