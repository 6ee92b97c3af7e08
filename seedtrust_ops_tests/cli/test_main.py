"""The command line: errors are one line with exit code 1, and `--help` imports nothing slow."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.config import dagster_home
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.formatting import MAX_ID
from seedtrust_ops_tests.support.databases import plain_url, temporary_database
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

BEYOND = "9" * 21
"""A number that no row can have."""


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


def numbers_of(commands: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Yield the function and name of every number that a command takes, with Typer's description of it."""
    for command in commands.registered_commands:
        assert command.callback is not None
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            if get_origin(hint) is Annotated and int in (hint.__origin__, *get_args(hint.__origin__)):
                yield f"{command.callback.__name__} {name}", hint.__metadata__[0]
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        yield from numbers_of(group.typer_instance)


def test_numbers_have_limits_that_the_database_can_keep() -> None:
    limits = {name: (number.min, number.max) for name, number in numbers_of(app)}
    assert {"settle transaction_id", "explain request", "ack alert", "seed cases", "web port"} <= limits.keys()
    # An email that no row can have is named as one that does not exist.
    del limits["show email"]
    assert {name: one for name, one in limits.items() if None in one or one[1] > MAX_ID} == {}


@pytest.mark.parametrize(
    "command",
    [
        ("transfers", "settle", BEYOND, "--as-status", "failed", "--reason", "x"),
        ("transfers", "explain", "tr_1", "--reason", "x", "--request", BEYOND),
        ("transfers", "release", BEYOND),
        ("alerts", "ack", BEYOND),
        ("alerts", "resolve", BEYOND),
        ("rules", "explain", BEYOND),
    ],
    ids=" ".join,
)
def test_number_of_21_digits_is_refused_by_its_limit(command: tuple[str, ...]) -> None:
    code, _, errors = run(*command)
    assert code == 2
    assert f"less than or equal to {MAX_ID}" in " ".join(errors.replace("│", " ").split())


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
