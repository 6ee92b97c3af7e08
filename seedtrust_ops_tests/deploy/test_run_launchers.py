"""The pods and tasks that Dagster's real Kubernetes and ECS launchers build for a run, with the settings of deploy/.

Kubernetes' API is replaced by an object that keeps what it was asked to create, ECS by moto.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import boto3
import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext, ResumeRunContext, RunLauncher
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import create_run_for_test
from dagster_aws.ecs import EcsRunLauncher
from dagster_k8s import K8sRunLauncher
from moto import mock_aws

import seedtrust_ops
from seedtrust_ops.run_admission import OWN_DEFINITIONS, RunRefused
from seedtrust_ops_tests.monitoring.sample_runs import SOME_JOB

DEPLOY = Path(seedtrust_ops.__file__).parents[1] / "deploy"
JOB = "process_huntington_batch"
REFUSED = "was not started, because"
EVIL_POD = json.dumps(
    {
        "container_config": {
            "image": "evil",
            "command": ["sh", "-c", "evil"],
            "env": [{"name": "HUNTINGTON_API_URL", "value": "https://evil.example"}],
        },
        "pod_spec_config": {"service_account_name": "seedtrust-ops-daemon"},
    }
)
EVIL_TASK = json.dumps({"command": ["sh", "-c", "evil"]})

Started = list[dict[str, Any]]


def launcher_settings(platform: str) -> tuple[type[Any], dict[str, Any]]:
    """Return the launcher's class and its settings, as Dagster reads them from the platform's dagster.yaml."""
    section = yaml.safe_load((DEPLOY / platform / "dagster.yaml").read_text())["run_launcher"]
    launcher = getattr(importlib.import_module(section["module"]), section["class"])
    result = process_config(dg.Field(launcher.config_type()).config_type, section["config"])
    assert result.success, result.errors
    return launcher, dict(result.value or {})


def kubernetes_launcher(kind: type[K8sRunLauncher] | None = None) -> tuple[RunLauncher, Started]:
    """Return the launcher of deploy/kubernetes, or another with its settings, and the jobs that it creates."""
    launcher, settings = launcher_settings("kubernetes")
    started: Started = []
    batch_api = MagicMock()
    batch_api.create_namespaced_job.side_effect = lambda body, namespace, **_: started.append(
        {"job": body, "namespace": namespace}
    )
    return (kind or launcher)(**settings, k8s_client_batch_api=batch_api, k8s_client_core_api=MagicMock()), started


def ecs_launcher(kind: type[EcsRunLauncher] | None = None) -> tuple[RunLauncher, Started]:
    """Return the launcher of deploy/ecs, or another with its settings, and the tasks that it starts."""
    launcher, settings = launcher_settings("ecs")
    boto3.client("ecs").register_task_definition(**json.loads((DEPLOY / "ecs" / "run.json").read_text()))
    started: Started = []

    def run_task(**arguments: Any) -> dict[str, str]:
        started.append(arguments)
        return {"taskArn": "arn:of:the:task", "clusterArn": "arn:of:the:cluster"}

    # The cluster and network are those of the launching task, and this process is none.
    built = (kind or launcher)(**settings | {"use_current_ecs_task_config": False})
    built._run_task = run_task
    return built, started


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read no credentials of a cluster."""
    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **_: None)


LAUNCHERS = {"kubernetes": kubernetes_launcher, "ecs": ecs_launcher}
pytestmark = pytest.mark.usefixtures("aws", "cluster")


def new_run(instance: dg.DagsterInstance, tags: dict[str, str], **origin: Any) -> dg.DagsterRun:
    """Return a run as the daemon reads it from the queue; it was written into the database whatever its tags."""
    pointer = origin.pop("code_pointer", ModuleCodePointer(*OWN_DEFINITIONS.split(":"), "/opt/seedtrust-ops"))
    repository = RepositoryPythonOrigin("/usr/bin/python", pointer, **origin)
    run_id = create_run_for_test(
        instance, job_name=JOB, tags=tags, remote_job_origin=SOME_JOB, job_code_origin=JobPythonOrigin(JOB, repository)
    ).run_id
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def start(launcher: RunLauncher, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    if not launcher.has_instance:
        launcher.register_instance(instance)
    launcher.launch_run(LaunchRunContext(run, workspace=None))


ATTACKS = {
    "dagster-k8s/config": EVIL_POD,
    "dagster-k8s/resource_requirements": '{"limits": {"memory": "1Ti"}}',
    "ecs/container_overrides": EVIL_TASK,
    "ecs/task_overrides": '{"taskRoleArn": "evil"}',
    "ecs/run_task_kwargs": '{"taskDefinition": "evil"}',
}


@pytest.mark.parametrize("tag", ATTACKS)
@pytest.mark.parametrize("platform", LAUNCHERS)
def test_launcher_starts_no_run_whose_tag_replaces_its_container(
    instance: dg.DagsterInstance, platform: str, tag: str
) -> None:
    launcher, started = LAUNCHERS[platform]()
    run = new_run(instance, {tag: ATTACKS[tag]})
    with pytest.raises(RunRefused, match=REFUSED):
        start(launcher, instance, run)
    with pytest.raises(RunRefused, match=REFUSED):
        launcher.resume_run(ResumeRunContext(run, workspace=None, resume_attempt_number=1))
    assert started == []


@pytest.mark.parametrize(
    ("build", "tag"),
    [
        (lambda: ecs_launcher(EcsRunLauncher), "ecs/container_overrides"),
        (lambda: kubernetes_launcher(K8sRunLauncher), "dagster-k8s/config"),
    ],
)
def test_attack_is_what_dagsters_own_launchers_do(
    instance: dg.DagsterInstance, build: Callable[[], tuple[RunLauncher, Started]], tag: str
) -> None:
    launcher, started = build()
    run = new_run(instance, {tag: ATTACKS[tag]})
    if isinstance(launcher, K8sRunLauncher):
        # The settings alone stop it there.
        with pytest.raises(Exception, match="fields that violated the allowed list"):
            start(launcher, instance, run)
        launcher._only_allow_user_defined_k8s_config_fields = None
    start(launcher, instance, run)
    assert "evil" in str(started)


def test_pod_of_a_run_follows_from_the_settings_whatever_the_database_says(instance: dg.DagsterInstance) -> None:
    launcher, started = kubernetes_launcher()
    evil_context = {"k8s": {"service_account_name": "evil", "env_vars": ["HUNTINGTON_API_URL=https://evil.example"]}}
    start(
        launcher,
        instance,
        new_run(
            instance,
            {"user": "user:7"},
            container_image="evil",
            entry_point=["sh", "-c", "evil"],
            container_context=evil_context,
        ),
    )
    (created,) = started
    assert "evil" not in str(created)
    settings = launcher_settings("kubernetes")[1]
    pod = created["job"].spec.template.spec
    (container,) = pod.containers
    assert (created["namespace"], pod.service_account_name) == ("seedtrust-ops", "seedtrust-ops-run")
    assert container.image == settings["job_image"]
    assert container.args[:3] == ["dagster", "api", "execute_run"]
    assert container.security_context.read_only_root_filesystem
    image = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["images"][0]
    assert settings["job_image"] == f"{image['newName']}:{image['newTag']}"


def test_pod_of_a_run_gets_the_secret_of_runs_and_no_token(instance: dg.DagsterInstance) -> None:
    launcher, started = kubernetes_launcher()
    start(launcher, instance, new_run(instance, {}))
    pod = started[0]["job"].spec.template
    (container,) = pod.spec.containers
    assert [source.secret_ref.name for source in container.env_from if source.secret_ref] == ["seedtrust-ops-run"]
    assert pod.spec.automount_service_account_token is False
    # The policies of network.yaml select it by this label.
    assert pod.metadata.labels["app.kubernetes.io/component"] == "run_worker"
    # The image's entry point, which switches core dumps off, stays.
    assert container.command is None


def test_stopping_a_run_calls_what_the_web_server_may(instance: dg.DagsterInstance) -> None:
    """deploy/kubernetes/access.yaml lets it delete jobs, and list and delete pods."""
    launcher, _ = kubernetes_launcher()
    run = new_run(instance, {})
    start(launcher, instance, run)
    pod = MagicMock()
    pod.metadata.name = "pod-of-the-run"
    assert isinstance(launcher, K8sRunLauncher)
    client = launcher._api_client
    client.core_api.list_namespaced_pod.return_value.items = [pod]
    client.batch_api.reset_mock()
    assert launcher.terminate(run.run_id)
    calls = {name for api in (client.batch_api, client.core_api) for name, *_ in api.method_calls}
    assert calls == {"delete_namespaced_job", "list_namespaced_pod", "delete_namespaced_pod"}


def test_task_of_a_run_follows_from_the_settings_whatever_the_database_says(instance: dg.DagsterInstance) -> None:
    launcher, started = ecs_launcher()
    evil_context = {"ecs": {"task_definition_arn": "evil", "env_vars": ["HUNTINGTON_API_URL=https://evil.example"]}}
    start(
        launcher,
        instance,
        new_run(instance, {}, container_image="evil", entry_point=["sh", "-c"], container_context=evil_context),
    )
    (task,) = started
    assert "evil" not in str(task)
    assert ":task-definition/seedtrust-ops-run:" in task["taskDefinition"]
    (override,) = task["overrides"]["containerOverrides"]
    assert override["name"] == "run"
    assert override["command"][:3] == ["dagster", "api", "execute_run"]


@pytest.mark.parametrize("platform", LAUNCHERS)
def test_launcher_starts_no_run_that_names_other_code(instance: dg.DagsterInstance, platform: str) -> None:
    launcher, started = LAUNCHERS[platform]()
    run = new_run(instance, {}, code_pointer=ModuleCodePointer("antigravity", "defs", None))
    with pytest.raises(RunRefused, match="names other code"):
        start(launcher, instance, run)
    assert started == []
