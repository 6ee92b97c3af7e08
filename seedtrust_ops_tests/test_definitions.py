"""Everything that Dagster loads has a description, an owner, a severity and a group.

The tests walk the loaded definitions, in production and with DEV_ENV=1, and list whatever is missing.
"""

import runpy
from typing import Any

import dagster as dg
import pytest

from seedtrust_ops import definitions as definitions_module
from seedtrust_ops.job_policies import JOB_POLICIES, Group
from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import GROUP_TAG, SEVERITY_TAG
from seedtrust_ops_tests.support.environment import SetVariables

MIN_DESCRIPTION_LENGTH = 15


@pytest.fixture(params=["0", "1"], ids=["production", "DEV_ENV=1"])
def repository(request: pytest.FixtureRequest, set_variables: SetVariables) -> dg.RepositoryDefinition:
    """The repository as Dagster loads it: `definitions.py` is executed again in that environment."""
    set_variables(DEV_ENV=request.param)
    repository = runpy.run_path(str(definitions_module.__file__))["defs"].get_repository_def()
    assert ("example" in repository.job_names) is (request.param == "1")
    return repository


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
