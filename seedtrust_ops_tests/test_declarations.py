"""Everything that Dagster loads is declared in full: description, owner, severity, shadow mode, README, schedule.

The tests walk the loaded definitions, in production and with DEV_ENV=1, and list whatever is missing. A job that
passes them is safe to run in shadow mode and can be found by a person; docs/adding-a-job.md is the checklist.
"""

import calendar
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, sessionmaker

import seedtrust_ops
from seedtrust_ops import jobs
from seedtrust_ops.job_policies import JOB_POLICIES, Group
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, StorageResource
from seedtrust_ops.orchestration.job_factory import SHADOW_LABEL, job_asset, single_op_job
from seedtrust_ops.orchestration.schedules import daily_schedule
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import User
from seedtrust_ops.tag_names import GROUP_TAG, SEVERITY_TAG
from seedtrust_ops_tests.support.environment import SetVariables

MIN_DESCRIPTION_LENGTH = 15
README = Path(__file__).parents[1] / "README.md"
LAUNCHED_BY_HAND = {
    *("example", "example_error", "example_progress", "example_with_args"),
    *("settle_transfer", "explain_transfer", "requeue_failed_payments"),
}


@pytest.fixture(params=["0", "1"], ids=["production", "DEV_ENV=1"])
def repository(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, set_variables: SetVariables
) -> dg.RepositoryDefinition:
    """The repository as Dagster loads it in that environment; whatever declares something is executed again."""
    set_variables(DEV_ENV=request.param)
    for name in [name for name in sys.modules if name.startswith(("seedtrust_ops.jobs", "seedtrust_ops.definitions"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(seedtrust_ops, "jobs", jobs)  # restored at the end: importing the files again replaces it
    repository = importlib.import_module("seedtrust_ops.definitions").defs.get_repository_def()
    assert ("example" in repository.job_names) is (request.param == "1")
    return repository


@pytest.fixture
def job_modules(repository: dg.RepositoryDefinition) -> list[ModuleType]:
    """The files of `jobs/`, as the repository was loaded from them."""
    names = [f"{jobs.__name__}.{module.name}" for module in pkgutil.iter_modules(jobs.__path__)]
    assert len(names) > len(repository.get_all_jobs()) - 10
    return [importlib.import_module(name) for name in names]


def missing_metadata(description: str | None, owners: Any, tags: Any) -> list[str]:
    """Return which of description, owner, severity and group are missing."""
    missing = []
    if len((description or "").strip()) < MIN_DESCRIPTION_LENGTH:
        missing.append("description")
    if not owners:
        missing.append("owner")
    if tags.get(SEVERITY_TAG) not in set(Severity):
        missing.append("severity tag")
    if tags.get(GROUP_TAG) not in set(Group):
        missing.append("group tag")
    return missing


def jobs_of(repository: dg.RepositoryDefinition) -> list[dg.JobDefinition]:
    return [job for job in repository.get_all_jobs() if not job.name.startswith("__ASSET_JOB")]


def incomplete(missing_by_name: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: missing for name, missing in missing_by_name.items() if missing}


def test_jobs_schedules_and_sensors_have_full_metadata(repository: dg.RepositoryDefinition) -> None:
    declared: list[tuple[str, Any]] = [
        *(("job", job) for job in jobs_of(repository)),
        *(("schedule", schedule) for schedule in repository.schedule_defs),
        *(("sensor", sensor) for sensor in repository.sensor_defs),
    ]
    assert (
        incomplete(
            {
                f"{kind} {definition.name}": missing_metadata(
                    definition.description, definition.owners, definition.tags
                )
                for kind, definition in declared
            }
        )
        == {}
    )


def test_every_run_executes_in_its_own_process(repository: dg.RepositoryDefinition) -> None:
    # Runs launched from an asset's page included: Dagster's default starts a process for each step of theirs.
    assert {job.executor_def.name for job in repository.get_all_jobs()} == {"in_process"}


def test_ops_have_a_description_and_a_kind(repository: dg.RepositoryDefinition) -> None:
    ops = {
        node.name: node.definition
        for job in jobs_of(repository)
        for node in job.nodes
        if not job.asset_layer.executable_asset_keys
    }
    assert ops
    missing = {
        f"op {name}": [
            *(["description"] if len(op.description or "") < MIN_DESCRIPTION_LENGTH else []),
            *(["kind"] if not op.tags.get("kind") else []),
        ]
        for name, op in ops.items()
    }
    assert incomplete(missing) == {}


def test_assets_and_checks_have_full_metadata(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    missing = {}
    for key in graph.get_all_asset_keys():
        asset = graph.get(key)
        missing[f"asset {key.to_user_string()}"] = [
            *missing_metadata(asset.description, asset.owners, asset.tags),
            *(["kind"] if not asset.kinds else []),
            *([f"group (it is {asset.group_name})"] if asset.group_name not in set(Group) else []),
        ]
    assert missing
    for check in graph.asset_check_keys:
        described = graph.get_check_spec(check).description
        missing[f"check {check.name}"] = ["description"] if len(described or "") < MIN_DESCRIPTION_LENGTH else []
    assert incomplete(missing) == {}


def test_config_fields_have_a_description_and_a_default(
    repository: dg.RepositoryDefinition,
) -> None:
    fields = {
        f"{job.name}.{name}": field
        for job in jobs_of(repository)
        for node in job.nodes
        if node.definition.config_schema is not None
        for name, field in getattr(node.definition.config_schema.config_type, "fields", {}).items()
    }
    assert fields
    missing = {
        f"config field {name}": [
            *(["description"] if len(field.description or "") < MIN_DESCRIPTION_LENGTH else []),
            *(["default"] if not field.default_provided else []),
        ]
        for name, field in fields.items()
    }
    assert incomplete(missing) == {}


def test_resources_have_a_description(repository: dg.RepositoryDefinition) -> None:
    resources = repository.get_top_level_resources()
    assert resources
    missing = {
        f"resource {name}": ["description"]
        for name, resource in resources.items()
        if len(resource.description or "") < MIN_DESCRIPTION_LENGTH
    }
    assert missing == {}


def test_jobs_have_a_job_policy(repository: dg.RepositoryDefinition) -> None:
    assert {job.name for job in jobs_of(repository)} <= set(JOB_POLICIES)


def without_shadow_rule(declared: list[dg.JobDefinition]) -> list[str]:
    """Return the jobs and assets that the job factory did not build, so that they would run live in shadow mode."""
    return [
        *(job.name for job in declared if SHADOW_LABEL not in job.metadata),
        *(
            f"{job.name}: asset {key.to_user_string()}"
            for job in declared
            for key in job.asset_layer.executable_asset_keys
            if SHADOW_LABEL not in job.asset_layer.get(key).metadata
        ),
        *(
            f"{job.name}: check {key.name}"
            for job in declared
            for key in job.asset_layer.asset_graph.asset_check_keys
            if SHADOW_LABEL not in (job.asset_layer.asset_graph.get_check_spec(key).metadata or {})
        ),
    ]


def test_jobs_and_assets_state_what_they_do_in_shadow_mode(repository: dg.RepositoryDefinition) -> None:
    assert without_shadow_rule(jobs_of(repository)) == []


def test_jobs_and_assets_built_without_the_factory_are_found() -> None:
    @dg.op
    def email_everybody() -> None: ...

    @dg.job
    def plain_job() -> None:
        email_everybody()

    @dg.asset
    def plain_asset() -> None: ...

    @dg.asset_check(asset=plain_asset)
    def plain_check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    plain = dg.Definitions(
        assets=[plain_asset], asset_checks=[plain_check], jobs=[plain_job, dg.define_asset_job("asset_job")]
    )
    found = without_shadow_rule(jobs_of(plain.get_repository_def()))
    assert sorted(found) == ["asset_job", "asset_job: asset plain_asset", "asset_job: check plain_check", "plain_job"]


DECLARE_READ_ONLY: list[Callable[..., Any]] = [
    single_op_job(kind="s3", shadow=None),
    job_asset("retention", name="files", shadow=None),
]


@pytest.mark.parametrize("declare", DECLARE_READ_ONLY)
def test_job_that_only_reads_gets_no_resource_but_the_database(declare: Callable[..., object]) -> None:
    def write_files(context: dg.OpExecutionContext, database: DatabaseResource, storage: StorageResource) -> None: ...

    with pytest.raises(TypeError, match="uses storage, so it may change something outside the database"):
        declare(write_files)


@pytest.mark.parametrize("declare", DECLARE_READ_ONLY)
def test_job_that_only_reads_gets_no_untyped_resource(declare: Callable[..., object]) -> None:
    def write_files(context: dg.OpExecutionContext, mail: dg.ResourceParam[Any]) -> None: ...

    with pytest.raises(TypeError, match="uses mail, so it may change something outside the database"):
        declare(write_files)


def delete_with_a_session(database: DatabaseResource) -> None:
    with database.sessions().begin() as session:
        session.execute(delete(User))


def delete_with_the_engine(database: DatabaseResource) -> None:
    with database.engine().begin() as connection:
        connection.execute(delete(User))


def delete_with_autocommit(database: DatabaseResource) -> None:
    with database.engine().connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(delete(User))


def delete_with_an_autocommit_engine(database: DatabaseResource) -> None:
    with database.engine().execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(delete(User))


@pytest.mark.parametrize(
    ("delete_users", "refusal"),
    [
        (delete_with_a_session, "cannot execute DELETE in a read-only transaction"),
        (delete_with_the_engine, "cannot execute DELETE in a read-only transaction"),
        (delete_with_autocommit, "can't use AUTOCOMMIT"),
        (delete_with_an_autocommit_engine, "can't use AUTOCOMMIT"),
    ],
)
def test_job_that_only_reads_can_not_write_to_the_database(
    delete_users: Callable[[DatabaseResource], None],
    refusal: str,
    sessions: sessionmaker[Session],
    set_variables: SetVariables,
) -> None:
    set_variables(SEEDTRUST_DATABASE_URL=str(sessions.kw["bind"].url.render_as_string(hide_password=False)))
    with sessions.begin() as session:
        session.add(User(email="ana@example.com", full_name="Ana Diaz", role="admin"))

    @single_op_job(kind="postgres", shadow=None)
    def cleanup(context: dg.OpExecutionContext, database: DatabaseResource) -> None:
        delete_users(database)

    result = cleanup.execute_in_process(resources={"database": DatabaseResource()}, raise_on_error=False)
    (failure,) = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    assert refusal in str(failure)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1


def test_jobs_are_in_the_table_of_the_readme(repository: dg.RepositoryDefinition) -> None:
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in README.read_text().splitlines()]
    table = {name: tuple(row[2:]) for row in cells if len(row) == 4 for name in re.findall(r"`(\w+)`", row[0])}
    expected = {job.name: (JOB_POLICIES[job.name].severity.value, queue_limit(job.name)) for job in jobs_of(repository)}
    assert {name: row for name, row in expected.items() if table.get(name) != row} == {}


def test_readme_tells_the_time_of_each_schedule(repository: dg.RepositoryDefinition) -> None:
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in README.read_text().splitlines()]
    runs = {name: row[1] for row in cells if len(row) == 4 for name in re.findall(r"`(\w+)`", row[0])}
    wrong: list[str] = []
    for schedule in repository.schedule_defs:
        assert isinstance(schedule.cron_schedule, str)
        minute, hour, *_, weekday = schedule.cron_schedule.split()
        words = [f"{int(hour):02}:{int(minute):02}"] if hour != "*" else []
        words += {"*": [], "1-5": ["weekdays"]}.get(weekday) or [
            calendar.day_name[int(day) - 1] for day in weekday if day.isdigit()
        ]
        cell = runs[schedule.job_name].lower()
        wrong += [f"{schedule.job_name}: {word}" for word in words if word.lower() not in cell]
    assert wrong == []


def queue_limit(job_name: str) -> str:
    """Return how long a run of the job may wait in the queue, as the README writes it."""
    limit = JOB_POLICIES[job_name].expires_after
    if limit is None:
        return "never"
    minutes = round(limit.total_seconds() / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"


def not_loaded(repository: dg.RepositoryDefinition, modules: Sequence[ModuleType]) -> list[str]:
    """Return the jobs, schedules and sensors that a job file declares and that Dagster does not load."""
    loaded = {
        *repository.job_names,
        *(schedule.name for schedule in repository.schedule_defs),
        *(sensor.name for sensor in repository.sensor_defs),
    }
    return [
        f"{module.__name__}: {value.name}"
        for module in modules
        for value in vars(module).values()
        if isinstance(value, dg.JobDefinition | dg.ScheduleDefinition | dg.SensorDefinition)
        and value.name not in loaded
    ]


def test_everything_that_a_job_file_declares_is_loaded(
    repository: dg.RepositoryDefinition, job_modules: list[ModuleType]
) -> None:
    by_hand = {f"seedtrust_ops.jobs.examples: {name}" for name in LAUNCHED_BY_HAND - set(repository.job_names)}
    assert set(not_loaded(repository, job_modules)) == by_hand


def test_schedule_that_is_not_registered_is_found(repository: dg.RepositoryDefinition) -> None:
    module = ModuleType("forgotten")

    @single_op_job(kind="python", shadow=None)
    def forgotten_job(_context: dg.OpExecutionContext) -> None: ...

    vars(module).update(job=forgotten_job, schedule=daily_schedule(forgotten_job, hour=6))
    assert not_loaded(repository, [module]) == ["forgotten: forgotten_job", "forgotten: forgotten_job_schedule"]


def test_jobs_have_a_schedule_or_sensor_unless_launched_by_hand(repository: dg.RepositoryDefinition) -> None:
    launched = {schedule.job_name for schedule in repository.schedule_defs} | {
        target.job_name for sensor in repository.sensor_defs for target in sensor.targets
    }
    assert {job.name for job in jobs_of(repository)} - launched - LAUNCHED_BY_HAND == set()
