"""The command line: its errors are one sentence and exit code 1, and asking for help loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.config import dagster_home, get_settings
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops_tests.support.databases import own_database, plain
from seedtrust_ops_tests.support.factories import Company


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_help_is_fast_because_it_loads_nothing_heavy() -> None:
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


def test_trouble_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", "mysql://somewhere/else")
    get_settings.cache_clear()
    code, output, said = run("migrate")
    get_settings.cache_clear()
    assert code == 1
    assert output == ""
    assert said.startswith("SEEDTRUST_DATABASE_URL can't be used")
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_trouble_in_a_group_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDTRUST_DATABASE_URL", "postgresql://somebody:secret@127.0.0.1:1/nothing")
    get_settings.cache_clear()
    code, _, said = run("transfers", "resume")
    get_settings.cache_clear()
    assert code == 1
    assert said.count("can't be used") == 1
    assert "secret" not in said


def test_migrate_says_what_it_did(monkeypatch: pytest.MonkeyPatch, postgres_server: object) -> None:
    with own_database(postgres_server) as url:  # type: ignore[arg-type]
        monkeypatch.setenv("SEEDTRUST_DATABASE_URL", plain(url))
        get_settings.cache_clear()
        code, _, said = run("migrate")
        assert code == 1
        assert "migrate --platform" in said
        code, output, _ = run("migrate", "--platform")
        assert code == 0
        assert "Created the platform's tables" in output
        get_settings.cache_clear()


@pytest.mark.usefixtures("bank_environment")
def test_halt_and_resume() -> None:
    code, output, _ = run("transfers", "halt", "--reason", "the bank is moving house")
    assert code == 0
    assert "the bank is moving house" in output
    assert run("transfers", "resume")[1] == "Transfers are sent again.\n"
    assert run("transfers", "resume")[1] == "Transfers were not halted.\n"


@pytest.mark.usefixtures("bank_environment")
def test_seed_refuses_a_company_of_somebody_else(company: Company) -> None:
    company.case()
    code, _, said = run("seed", "--cases", "10")
    assert code == 1
    assert "that the seed did not make" in said


def test_a_home_without_dagster_yaml_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    get_settings.cache_clear()
    with pytest.raises(ConfigurationError, match=r"There is no dagster\.yaml in"):
        dagster_home()
    get_settings.cache_clear()
