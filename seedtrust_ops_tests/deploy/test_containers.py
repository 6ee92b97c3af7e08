"""deploy/ecs and deploy/kubernetes: settings that differ from one machine's where they must, and variables of ours.

The launchers of Dagster that they name are not among the project's packages; their config was held to the packages'
own schemas by hand, with the versions in constraints.txt.
"""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.validate import ParamValidator
from typer.testing import CliRunner

import seedtrust_ops
from seedtrust_ops.cli.main import app
from seedtrust_ops.supervisor.worker_stack import CALLS_AT_ONCE, DEFINITIONS
from seedtrust_ops_tests.deploy.environment_variables import OF_BOTO3, OF_DAGSTER, SECRET, known, needed

ROOT = Path(seedtrust_ops.__file__).parents[1]
DEPLOY = ROOT / "deploy"
TASKS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "ecs").glob("*.json"))}
POLICY = TASKS.pop("launching-policy")
CONTAINERS = {container["name"]: container for task in TASKS.values() for container in task["containerDefinitions"]}
KUBERNETES = DEPLOY / "kubernetes"
OBJECTS = [
    document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name not in ("dagster.yaml", "workspace.yaml", "kustomization.yaml")
    for document in yaml.safe_load_all(path.read_text())
]
PODS = {
    one["metadata"].get("name", "migrate"): one["spec"]["template"]
    for one in OBJECTS
    if one["kind"] in ("Deployment", "Job")
}
HERE_ALONE = {"run_launcher", "compute_logs", "run_monitoring"}


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in OBJECTS if one["kind"] == kind and one["metadata"].get("name") == name]
    return dict(found)


def commands() -> list[list[str]]:
    pods = [container["command"] for pod in PODS.values() for container in pod["spec"]["containers"]]
    tasks = [container["command"] for container in CONTAINERS.values() if "command" in container]
    return [[str(part) for part in command] for command in [*pods, *tasks]]


@pytest.mark.parametrize("platform", ["ecs", "kubernetes"])
def test_dagster_is_told_the_same_as_on_one_machine_but_for_where_runs_are(platform: str) -> None:
    here, there = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (ROOT, DEPLOY / platform))
    assert {name for name in here if here[name] != there[name]} == HERE_ALONE
    assert here.keys() == there.keys()
    monitoring = here["run_monitoring"] | there["run_monitoring"]
    assert monitoring["enabled"]
    assert monitoring["max_resume_run_attempts"] == 0
    assert there["compute_logs"]["config"]["bucket"] == {"env": "REPORTS_BUCKET"}


@pytest.mark.parametrize("platform", ["ecs", "kubernetes"])
def test_the_workspace_names_the_code_location_that_applications_launch_in(platform: str) -> None:
    (entry,) = yaml.safe_load((DEPLOY / platform / "workspace.yaml").read_text())["load_from"]
    assert entry["grpc_server"]["location_name"] == "seedtrust_ops"
    serving = [command for command in commands() if "code-server" in command]
    assert len(serving) == 2
    for command in serving:
        said = " ".join(command).replace("=", " ")
        assert f"-m {DEFINITIONS} " in said
        assert f"--port {entry['grpc_server']['port']} " in said
        assert said.endswith(f"--location-name seedtrust_ops --max-workers {CALLS_AT_ONCE}")


def test_every_command_is_one_of_ours_or_of_dagsters() -> None:
    for program, *arguments in commands():
        if program == "seedtrust-ops":
            assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
        elif program == "python":
            assert arguments[:2] == ["-m", "seedtrust_ops.supervisor.fast_daemon"]
        else:
            assert program in ("dagster", "dagster-webserver")


@pytest.mark.parametrize("name", TASKS)
def test_ecs_takes_the_task_definitions(name: str) -> None:
    shape = boto3.Session().client("ecs", region_name="us-east-1").meta.service_model
    wanted = shape.operation_model("RegisterTaskDefinition").input_shape
    assert ParamValidator().validate(TASKS[name], wanted).generate_report() == ""
    assert TASKS[name]["family"] == f"seedtrust-ops-{name}"


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_secret_of_a_task_lies_open_and_every_variable_is_known(name: str) -> None:
    container = CONTAINERS[name]
    secrets = {one["name"] for one in container["secrets"]}
    open_ones = {one["name"] for one in container.get("environment", ())}
    assert not {one for one in open_ones if SECRET.search(one)}
    assert secrets | open_ones <= known().keys() | OF_BOTO3 | OF_DAGSTER
    assert container["user"] == "10001"
    if name in ("code-server", "daemon", "web", "run"):
        assert secrets >= {one for one in needed() if SECRET.search(one)}


def test_the_launcher_of_ecs_finds_the_run_and_may_start_it() -> None:
    launcher = yaml.safe_load((DEPLOY / "ecs" / "dagster.yaml").read_text())["run_launcher"]["config"]
    (run,) = [task for task in TASKS.values() if task["family"] == launcher["task_definition"]]
    assert [container["name"] for container in run["containerDefinitions"]] == [launcher["container_name"]]
    allowed = {role for one in POLICY["Statement"] if one["Action"] == "iam:PassRole" for role in one["Resource"]}
    assert {run["taskRoleArn"], run["executionRoleArn"]} == allowed


def test_the_launcher_of_kubernetes_names_what_is_there() -> None:
    config = yaml.safe_load((KUBERNETES / "dagster.yaml").read_text())["run_launcher"]["config"]
    assert named("Namespace", config["job_namespace"])
    assert named("ServiceAccount", config["service_account_name"])
    assert [named("ConfigMap", name) for name in config["env_config_maps"]]
    assert [named("Secret", name) for name in config["env_secrets"]]
    generated = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["configMapGenerator"]
    assert [one["name"] for one in generated] == [config["instance_config_map"]]


def test_no_secret_of_the_cluster_lies_open_and_every_variable_is_known() -> None:
    open_ones = named("ConfigMap", "seedtrust-ops-environment")["data"].keys()
    secrets = named("Secret", "seedtrust-ops-secrets")["stringData"].keys()
    assert not {one for one in open_ones if SECRET.search(one)}
    assert {one for one in secrets if not SECRET.search(one)} == set()
    assert needed() <= open_ones | secrets <= known().keys() | OF_BOTO3
    own = {one["name"] for pod in PODS.values() for each in pod["spec"]["containers"] for one in each.get("env", ())}
    assert own <= OF_DAGSTER


@pytest.mark.parametrize("name", PODS)
def test_every_pod_runs_without_rights_on_its_node(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_every_pod_that_serves_is_reached_by_those_alone_that_a_policy_names() -> None:
    assert named("NetworkPolicy", "nobody")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for service in (one for one in OBJECTS if one["kind"] == "Service"):
        assert service["spec"]["type"] == "ClusterIP"
        policies = [
            one
            for one in OBJECTS
            if one["kind"] == "NetworkPolicy"
            and one["spec"]["podSelector"].get("matchLabels") == service["spec"]["selector"]
        ]
        (policy,) = policies
        ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert ports == {port["targetPort"] for port in service["spec"]["ports"]}
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


@pytest.mark.parametrize("name", ["daemon", "watchdog"])
def test_what_must_be_alone_is_never_there_twice(name: str) -> None:
    spec = named("Deployment", f"seedtrust-ops-{name}")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
