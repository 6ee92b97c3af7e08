"""deploy/ecs and deploy/kubernetes: Dagster settings, variables, commands, permissions and network policies.

What the launchers of their dagster.yaml build is in `test_run_launchers`.
"""

import json
import re
import subprocess
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
    secrets_by_component,
    setting_variables,
)

ROOT = Path(seedtrust_ops.__file__).parents[1]
DEPLOY = ROOT / "deploy"
TASKS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "ecs").glob("*.json"))}
POLICIES = {name.removesuffix("-policy"): TASKS.pop(name)["Statement"] for name in [*TASKS] if name.endswith("-policy")}
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
COMPONENTS = [component for component in secrets_by_component() if component != "worker"]
METADATA_SERVICE = "169.254.169.254/32"
PLATFORM_SPECIFIC = {"run_launcher", "compute_logs", "run_monitoring"}


def find_object(kind: str, name: str) -> dict[str, Any]:
    (found,) = [
        manifest for manifest in OBJECTS if manifest["kind"] == kind and manifest["metadata"].get("name") == name
    ]
    return dict(found)


def commands() -> list[list[str]]:
    pods = [container["args"] for pod in PODS.values() for container in pod["spec"]["containers"]]
    tasks = [container["command"] for container in CONTAINERS.values() if "command" in container]
    return [[str(part) for part in command] for command in [*pods, *tasks]]


def actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else list(action)


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
            assert program == "dagster"


@pytest.mark.parametrize("name", TASKS)
def test_task_definitions_are_valid_for_ecs(name: str) -> None:
    service = boto3.Session().client("ecs", region_name="us-east-1").meta.service_model
    expected = service.operation_model("RegisterTaskDefinition").input_shape
    assert ParamValidator().validate(TASKS[name], expected).generate_report() == ""
    assert TASKS[name]["family"] == f"seedtrust-ops-{name}"


@pytest.mark.parametrize("name", CONTAINERS)
def test_tasks_get_the_secrets_of_their_component_only(name: str) -> None:
    container = CONTAINERS[name]
    secrets = {secret["name"]: secret["valueFrom"] for secret in container["secrets"]}
    assert secrets.keys() == secrets_by_component()[name]
    assert all(source.endswith(f":parameter/seedtrust-ops/{name}/{secret}") for secret, source in secrets.items())
    plain_variables = {variable["name"] for variable in container.get("environment", ())}
    assert plain_variables <= DAGSTER_VARIABLES
    assert container["user"] == "10001"


def test_tasks_have_a_role_each_or_none() -> None:
    """The execution role reads the component's secrets; the task role is what its code may do in the cloud."""
    assert CONTAINERS.keys() == set(COMPONENTS)
    for name, task in TASKS.items():
        assert len(task["containerDefinitions"]) == 1
        assert task["executionRoleArn"].endswith(f":role/seedtrust-ops-{name}-execution")
        role = f"arn:aws:iam::ACCOUNT:role/seedtrust-ops-{name}" if name in POLICIES else None
        assert task.get("taskRoleArn") == role
    assert TASKS.keys() - POLICIES.keys() == {"migrate", "watchdog"}


def test_only_the_daemon_may_start_tasks_and_only_runs() -> None:
    allowed = {
        name: {action: each["Resource"] for each in POLICIES[name] for action in actions(each)} for name in POLICIES
    }
    assert {name for name in allowed if {"ecs:RunTask", "iam:PassRole"} & allowed[name].keys()} == {"daemon"}
    assert allowed["daemon"]["ecs:RunTask"].endswith(":task-definition/seedtrust-ops-run:*")
    roles = {TASKS["run"]["taskRoleArn"], TASKS["run"]["executionRoleArn"]}
    assert set(allowed["daemon"]["iam:PassRole"]) == roles
    # The UI's button stops a run, so the web server may.
    assert {action for action in allowed["web"] if action.startswith("ecs:")} == {
        "ecs:DescribeTaskDefinition",
        "ecs:DescribeTasks",
        "ecs:StopTask",
    }
    assert not {action for action in allowed["web"] if action.startswith("s3:Put")}


def test_ecs_launcher_finds_the_run_task() -> None:
    launcher = yaml.safe_load((DEPLOY / "ecs" / "dagster.yaml").read_text())["run_launcher"]["config"]
    (run,) = [task for task in TASKS.values() if task["family"] == launcher["task_definition"]]
    assert [container["name"] for container in run["containerDefinitions"]] == [launcher["container_name"]]


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
    assert not {variable for variable in plain_variables if SECRET.search(variable)}
    assert required_variables() <= plain_variables | secrets_by_component()["run"]
    assert plain_variables <= setting_variables().keys() | BOTO3_VARIABLES
    own = {
        variable["name"]
        for pod in PODS.values()
        for each in pod["spec"]["containers"]
        for variable in each.get("env", ())
    }
    assert own <= DAGSTER_VARIABLES


@pytest.mark.parametrize("name", COMPONENTS)
def test_pods_get_the_secret_of_their_component_only(name: str) -> None:
    secret = find_object("Secret", f"seedtrust-ops-{name}")
    assert secret["stringData"].keys() == secrets_by_component()[name]
    if name == "run":
        launcher = yaml.safe_load((KUBERNETES / "dagster.yaml").read_text())["run_launcher"]["config"]
        assert launcher["env_secrets"] == ["seedtrust-ops-run"]
        assert launcher["service_account_name"] == "seedtrust-ops-run"
        assert not launcher["run_k8s_config"]["pod_spec_config"]["automountServiceAccountToken"]
        return
    spec = PODS["migrate" if name == "migrate" else f"seedtrust-ops-{name}"]["spec"]
    (container,) = spec["containers"]
    assert [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each] == [
        secret["metadata"]["name"]
    ]
    assert spec["serviceAccountName"] == f"seedtrust-ops-{name}"
    assert not [volume for volume in spec["volumes"] if "secret" in volume]


def test_migration_secret_is_in_no_namespace_where_jobs_are_created() -> None:
    """Anyone who may create a job can mount every secret of its namespace, whatever Dagster's launcher allows."""
    launcher = yaml.safe_load((KUBERNETES / "dagster.yaml").read_text())["run_launcher"]["config"]
    (migration,) = [manifest for manifest in OBJECTS if manifest["kind"] == "Job"]
    for kind in ("Secret", "ServiceAccount"):
        namespace = find_object(kind, "seedtrust-ops-migrate")["metadata"]["namespace"]
        assert namespace == migration["metadata"]["namespace"]
        assert namespace != launcher["job_namespace"]
    granted = {manifest["metadata"].get("namespace") for manifest in OBJECTS if manifest["kind"] == "Role"}
    assert granted == {None}, "kustomization.yaml puts every role into the namespace of the runs"
    assert yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["namespace"] == launcher["job_namespace"]


def test_only_the_daemon_may_create_jobs() -> None:
    """The web server stops runs: Dagster's launcher lists a run's pods, and deletes them and its job."""
    permissions: dict[str, set[tuple[str, str]]] = {}
    for binding in (manifest for manifest in OBJECTS if manifest["kind"] == "RoleBinding"):
        role = find_object("Role", binding["roleRef"]["name"])
        granted = {
            (verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]
        }
        for subject in binding["subjects"]:
            permissions.setdefault(subject["name"], set()).update(granted)
    stop = {("delete", "jobs"), ("list", "pods"), ("delete", "pods")}
    assert permissions.keys() == {"seedtrust-ops-daemon", "seedtrust-ops-web"}
    assert permissions["seedtrust-ops-web"] == stop
    assert permissions["seedtrust-ops-daemon"] > stop | {("create", "jobs")}
    assert "secrets" not in {resource for granted in permissions.values() for _, resource in granted}
    for account in (manifest for manifest in OBJECTS if manifest["kind"] == "ServiceAccount"):
        has_token = account.get("automountServiceAccountToken", True)
        assert has_token == (account["metadata"]["name"] in permissions), account["metadata"]["name"]


@pytest.mark.parametrize("name", PODS)
def test_pods_run_without_privileges(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        # A command would replace the image's entry point, which switches core dumps off.
        assert "command" not in container


@pytest.mark.usefixtures("child_processes")
def test_image_switches_core_dumps_off() -> None:
    """Kubernetes and Fargate have no setting for it."""
    (line,) = re.findall(r"^ENTRYPOINT (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    program = [*json.loads(line), "sh", "-c", 'ulimit -H -c; echo "$1"', "sh", "a  b"]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    assert result.stdout == "0\na  b\n"


def test_services_are_reachable_only_as_a_policy_allows() -> None:
    assert find_object("NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for service in (manifest for manifest in OBJECTS if manifest["kind"] == "Service"):
        assert service["spec"]["type"] == "ClusterIP"
        policies = [
            manifest
            for manifest in OBJECTS
            if manifest["kind"] == "NetworkPolicy"
            and "ingress" in manifest["spec"]
            and manifest["spec"]["podSelector"].get("matchLabels") == service["spec"]["selector"]
        ]
        (policy,) = policies
        ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert ports == {port["targetPort"] for port in service["spec"]["ports"]}
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_pods_of_other_namespaces_reach_only_what_names_theirs() -> None:
    """A label alone would let in every namespace's pods that wear it."""
    peers = [
        peer
        for manifest in OBJECTS
        if manifest["kind"] == "NetworkPolicy"
        for rule in manifest["spec"].get("ingress", ())
        for peer in rule["from"]
    ]
    assert [peer["podSelector"] for peer in peers if "namespaceSelector" in peer] == [
        {"matchLabels": {"seedtrust-ops/may-use-web": "true"}}
    ]
    for peer in peers:
        assert peer["podSelector"], "an empty selector lets in every pod"
        for expression in peer.get("namespaceSelector", {"matchExpressions": []})["matchExpressions"]:
            assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "In")


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("run_worker", {53, 443, 587, 5432}),
        ("code-server", {53, 443, 587, 5432}),
        ("daemon", {53, 443, 4000, 5432, 6443}),
        ("web", {53, 443, 4000, 5432, 6443}),
        ("watchdog", {53, 443, 587, 5432}),
        ("migrate", {53, 5432}),
    ],
)
def test_pods_call_only_what_they_use(name: str, ports: set[int]) -> None:
    namespace = "seedtrust-ops-migrate" if name == "migrate" else None
    policies = [
        manifest["spec"]
        for manifest in OBJECTS
        if manifest["kind"] == "NetworkPolicy"
        and manifest["metadata"].get("namespace") == namespace
        and _selects(manifest["spec"]["podSelector"], name)
    ]
    assert any("Egress" in policy["policyTypes"] and policy["podSelector"] == {} for policy in policies)
    rules = [rule for policy in policies for rule in policy.get("egress", ())]
    assert {port["port"] for rule in rules for port in rule["ports"]} == ports
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
    assert all(METADATA_SERVICE in block["except"] for block in blocks)


def _selects(selector: dict[str, Any], component: str) -> bool:
    wanted = [selector["matchLabels"]["app.kubernetes.io/component"]] if "matchLabels" in selector else []
    for expression in selector.get("matchExpressions", ()):
        wanted += expression["values"]
    return not wanted or component in wanted


@pytest.mark.parametrize("name", ["daemon", "watchdog"])
def test_daemon_and_watchdog_never_run_twice(name: str) -> None:
    spec = find_object("Deployment", f"seedtrust-ops-{name}")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
