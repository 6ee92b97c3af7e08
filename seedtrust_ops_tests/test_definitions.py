"""Whatever Dagster loads tells people what it is, who answers for it, and how bad it is when it stops.

It walks the loaded definitions, as a developer's machine and as production have them, and names whatever is bare.
"""

import runpy
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from seedtrust_ops import definitions as definitions_module
from seedtrust_ops.config import get_settings
from seedtrust_ops.job_policies import GROUP_TAG, JOB_POLICIES, SEVERITY_TAG, Group
from seedtrust_ops.severity import Severity

SHORTEST_DESCRIPTION = 15


@pytest.fixture(params=["0", "1"], ids=["production", "DEV_ENV=1"])
def loaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.RepositoryDefinition]:
    """The repository as Dagster has it: the page of definitions is read anew, as on such a machine."""
    monkeypatch.setenv("DEV_ENV", request.param)
    get_settings.cache_clear()
    repository = runpy.run_path(str(definitions_module.__file__))["definitions"].get_repository_def()
    assert ("example" in repository.job_names) is (request.param == "1")
    yield repository
    get_settings.cache_clear()


def bare(description: str | None, owners: Any, tags: Any) -> list[str]:
    """What is missing of a description, an owner, a severity and a group."""
    missing = []
    if len((description or "").strip()) < SHORTEST_DESCRIPTION:
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


def named(bares: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: missing for name, missing in bares.items() if missing}


def test_every_job_and_whatever_launches_one_says_what_it_is(loaded: dg.RepositoryDefinition) -> None:
    declared: list[tuple[str, Any]] = [
        *(("job", job) for job in jobs_of(loaded)),
        *(("schedule", schedule) for schedule in loaded.schedule_defs),
        *(("sensor", sensor) for sensor in loaded.sensor_defs),
    ]
    assert named({f"{kind} {one.name}": bare(one.description, one.owners, one.tags) for kind, one in declared}) == {}


def test_every_op_says_what_it_does_and_on_what(loaded: dg.RepositoryDefinition) -> None:
    ops = {
        node.name: node.definition
        for job in jobs_of(loaded)
        for node in job.nodes
        if not job.asset_layer.executable_asset_keys
    }
    assert ops
    missing = {
        f"op {name}": [
            *(["description"] if len(op.description or "") < SHORTEST_DESCRIPTION else []),
            *(["kind"] if not op.tags.get("kind") else []),
        ]
        for name, op in ops.items()
    }
    assert named(missing) == {}


def test_every_asset_and_check_says_what_it_is(loaded: dg.RepositoryDefinition) -> None:
    graph = loaded.asset_graph
    missing = {}
    for key in graph.get_all_asset_keys():
        asset = graph.get(key)
        missing[f"asset {key.to_user_string()}"] = [
            *bare(asset.description, asset.owners, asset.tags),
            *(["kind"] if not asset.kinds else []),
            *([f"group (it is {asset.group_name})"] if asset.group_name not in set(Group) else []),
        ]
    assert missing
    for check in graph.asset_check_keys:
        described = graph.get_check_spec(check).description
        missing[f"check {check.name}"] = ["description"] if len(described or "") < SHORTEST_DESCRIPTION else []
    assert named(missing) == {}


def test_every_config_field_explains_itself_and_the_launchpad_has_a_value_for_it(
    loaded: dg.RepositoryDefinition,
) -> None:
    fields = {
        f"{job.name}.{name}": field
        for job in jobs_of(loaded)
        for node in job.nodes
        if node.definition.config_schema is not None
        for name, field in getattr(node.definition.config_schema.config_type, "fields", {}).items()
    }
    assert fields
    missing = {
        f"config field {name}": [
            *(["description"] if len(field.description or "") < SHORTEST_DESCRIPTION else []),
            *(["default"] if not field.default_provided else []),
        ]
        for name, field in fields.items()
    }
    assert named(missing) == {}


def test_every_resource_says_what_it_reaches(loaded: dg.RepositoryDefinition) -> None:
    resources = loaded.get_top_level_resources()
    assert resources
    missing = {
        f"resource {name}": ["description"]
        for name, resource in resources.items()
        if len(resource.description or "") < SHORTEST_DESCRIPTION
    }
    assert missing == {}


def test_every_job_has_its_rules(loaded: dg.RepositoryDefinition) -> None:
    assert {job.name for job in jobs_of(loaded)} <= set(JOB_POLICIES)
