"""deploy/ecs and deploy/kubernetes: Dagster settings, variables, commands, permissions and network policies.

Dagster's ECS and Kubernetes launchers are not installed here; their config was validated by hand against the schemas
of the versions in constraints.txt.
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
from seedtrust_ops.supervisor.worker_stack import DEFINITIONS, MAX_CONCURRENT_CALLS
from seedtrust_ops_tests.deploy.environment_variables import (
    BOTO3_VARIABLES,
    DAGSTER_VARIABLES,
    SECRET,
    required_variables,
    setting_variables,
)

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
    manifest["metadata"].get("name", "migrate"): manifest["spec"]["template"]
    for manifest in OBJECTS
    if manifest["kind"] in ("Deployment", "Job")
}
PLATFORM_SPECIFIC = {"run_launcher", "compute_logs", "run_monitoring"}


def find_object(kind: str, name: str) -> dict[str, Any]:
    (found,) = [
        manifest for manifest in OBJECTS if manifest["kind"] == kind and manifest["metadata"].get("name") == name
    ]
    return dict(found)


def commands() -> list[list[str]]:
    pods = [container["command"] for pod in PODS.values() for container in pod["spec"]["containers"]]
    tasks = [container["command"] for container in CONTAINERS.values() if "command" in container]
    return [[str(part) for part in command] for command in [*pods, *tasks]]


@pytest.mark.parametrize("platform", ["ecs", "kubernetes"])
def test_dagster_settings_differ_only_in_launcher_and_output(platform: str) -> None:
    local, scaled_out = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (ROOT, DEPLOY / platform))
    assert {name for name in local if local[name] != scaled_out[name]} == PLATFORM_SPECIFIC
    assert local.keys() == scaled_out.keys()
    monitoring = local["run_monitoring"] | scaled_out["run_monitoring"]
    assert monitoring["enabled"]
    assert monitoring["max_resume_run_attempts"] == 0
    assert scaled_out["compute_logs"]["config"]["bucket"] == {"env": "REPORTS_BUCKET"}


@pytest.mark.parametrize("platform", ["ecs", "kubernetes"])
def test_workspace_names_the_code_location_of_the_client(platform: str) -> None:
    (entry,) = yaml.safe_load((DEPLOY / platform / "workspace.yaml").read_text())["load_from"]
    assert entry["grpc_server"]["location_name"] == "seedtrust_ops"
    code_servers = [command for command in commands() if "code-server" in command]
    assert len(code_servers) == 2
    for command in code_servers:
        line = " ".join(command).replace("=", " ")
        assert f"-m {DEFINITIONS} " in line
        assert f"--port {entry['grpc_server']['port']} " in line
        assert line.endswith(f"--location-name seedtrust_ops --max-workers {MAX_CONCURRENT_CALLS}")


def test_commands_exist() -> None:
    for program, *arguments in commands():
        if program == "seedtrust-ops":
            assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
        elif program == "python":
            assert arguments[:2] == ["-m", "seedtrust_ops.supervisor.fast_daemon"]
        else:
            assert program in ("dagster", "dagster-webserver")


@pytest.mark.parametrize("name", TASKS)
def test_task_definitions_are_valid_for_ecs(name: str) -> None:
    service = boto3.Session().client("ecs", region_name="us-east-1").meta.service_model
    expected = service.operation_model("RegisterTaskDefinition").input_shape
    assert ParamValidator().validate(TASKS[name], expected).generate_report() == ""
    assert TASKS[name]["family"] == f"seedtrust-ops-{name}"


@pytest.mark.parametrize("name", CONTAINERS)
def test_task_secrets_are_not_plain_variables(name: str) -> None:
    container = CONTAINERS[name]
    secrets = {secret["name"] for secret in container["secrets"]}
    plain_variables = {variable["name"] for variable in container.get("environment", ())}
    assert not {variable for variable in plain_variables if SECRET.search(variable)}
    assert secrets | plain_variables <= setting_variables().keys() | BOTO3_VARIABLES | DAGSTER_VARIABLES
    assert container["user"] == "10001"
    if name in ("code-server", "daemon", "web", "run"):
        assert secrets >= {variable for variable in required_variables() if SECRET.search(variable)}


def test_ecs_launcher_finds_the_run_task_and_may_start_it() -> None:
    launcher = yaml.safe_load((DEPLOY / "ecs" / "dagster.yaml").read_text())["run_launcher"]["config"]
    (run,) = [task for task in TASKS.values() if task["family"] == launcher["task_definition"]]
    assert [container["name"] for container in run["containerDefinitions"]] == [launcher["container_name"]]
    allowed = {
        role
        for statement in POLICY["Statement"]
        if statement["Action"] == "iam:PassRole"
        for role in statement["Resource"]
    }
    assert {run["taskRoleArn"], run["executionRoleArn"]} == allowed


def test_kubernetes_launcher_names_existing_objects() -> None:
    config = yaml.safe_load((KUBERNETES / "dagster.yaml").read_text())["run_launcher"]["config"]
    assert find_object("Namespace", config["job_namespace"])
    assert find_object("ServiceAccount", config["service_account_name"])
    assert [find_object("ConfigMap", name) for name in config["env_config_maps"]]
    assert [find_object("Secret", name) for name in config["env_secrets"]]
    generated = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["configMapGenerator"]
    assert [config_map["name"] for config_map in generated] == [config["instance_config_map"]]


def test_cluster_secrets_are_not_in_the_config_map() -> None:
    plain_variables = find_object("ConfigMap", "seedtrust-ops-environment")["data"].keys()
    secrets = find_object("Secret", "seedtrust-ops-secrets")["stringData"].keys()
    assert not {variable for variable in plain_variables if SECRET.search(variable)}
    assert {secret for secret in secrets if not SECRET.search(secret)} == set()
    assert required_variables() <= plain_variables | secrets <= setting_variables().keys() | BOTO3_VARIABLES
    own = {
        variable["name"]
        for pod in PODS.values()
        for each in pod["spec"]["containers"]
        for variable in each.get("env", ())
    }
    assert own <= DAGSTER_VARIABLES


@pytest.mark.parametrize("name", PODS)
def test_pods_run_without_privileges(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_services_are_reachable_only_as_a_policy_allows() -> None:
    assert find_object("NetworkPolicy", "default-deny-ingress")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
    }
    for service in (manifest for manifest in OBJECTS if manifest["kind"] == "Service"):
        assert service["spec"]["type"] == "ClusterIP"
        policies = [
            manifest
            for manifest in OBJECTS
            if manifest["kind"] == "NetworkPolicy"
            and manifest["spec"]["podSelector"].get("matchLabels") == service["spec"]["selector"]
        ]
        (policy,) = policies
        ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert ports == {port["targetPort"] for port in service["spec"]["ports"]}
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


@pytest.mark.parametrize("name", ["daemon", "watchdog"])
def test_daemon_and_watchdog_never_run_twice(name: str) -> None:
    spec = find_object("Deployment", f"seedtrust-ops-{name}")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
