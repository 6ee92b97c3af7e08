"""The sequences of GraphQL requests that launch a job, read the state of a run, or revoke it.

Each workflow is a generator: it yields requests, receives their results and returns the final result. It does no I/O,
so that the blocking client and the client for asyncio share it.
See docs/decisions/ops-client.md.
"""

import re
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from seedtrust_ops.client import graphql
from seedtrust_ops.client.errors import (
    InvalidConfig,
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    RunAlreadyFinished,
    RunStarting,
    UnknownJob,
    UnknownRun,
)
from seedtrust_ops.client.graphql import GraphQLRequest
from seedtrust_ops.client.runs import RunState, RunStatus, build_run_state, outcome_from_events
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tag_names import REQUEST_TAG

Result = TypeVar("Result")
Response = Mapping[str, Any]
Workflow = Generator[GraphQLRequest, Response, Result]
_PATH = re.compile(r" at (?:the root|path root[^\s.]*?(?::config(?::(?P<field>[^\s.]+))?)?)(?=[\s.]|$)")
_ERROR_CLASS = re.compile(r"^[\w.]+\.[A-Z]\w+: ")
_SAMPLE = re.compile(r"\.? Sample config for missing entr(?:y|ies):.*", re.DOTALL)
STARTING = ("NOT_STARTED", "STARTING")
CODE_SERVER_UNREACHABLE = "DagsterUserCodeUnreachableError"


def launch(
    location: str, job: str, config: Mapping[str, Any], tags: Mapping[str, str], *, may_exist: bool
) -> Workflow[str]:
    """Launch a job with the request ID in `tags`; if it may have been launched before, look for that run first.

    Returns:
        The run's ID.
    """
    request_id = tags[REQUEST_TAG]
    if may_exist:
        found = yield from _find_run(request_id, job)
        if found is not None:
            return found
    try:
        response = yield graphql.launch_mutation(location, job, config, tags)
    except OperationsUnreachable as error:
        if error.not_sent:
            raise
        found = yield from _find_run(request_id, job)
        if found is not None:
            return found
        raise _launch_uncertain(job, request_id) from error
    if response["__typename"] == "PipelineNotFoundError":
        code_location = yield graphql.code_location_query(location)
        raise _job_not_found(code_location, job)
    return _parse_launch(response, job)


def job_run(run_id: str) -> Workflow[RunState]:
    """Return the state of a run, with its result or error if it completed or failed."""
    run = yield graphql.run_query(run_id)
    _expect(run, "Run", run_id)
    state = build_run_state(run)
    if state.status not in (RunStatus.COMPLETED, RunStatus.ERROR):
        return state
    events: list[Response] = []
    after = None
    while True:
        page = yield graphql.events_query(run_id, after)
        _expect(page, "Run", run_id)
        connection = page["eventConnection"]
        events += connection["events"]
        after = connection["cursor"]
        if not connection["hasMore"]:
            return build_run_state(run, outcome_from_events(events))


def revoke(run_id: str) -> Workflow[RunState]:
    """Cancel a queued run or stop a running one; return its state afterwards."""
    response = yield graphql.revoke_mutation(run_id)
    if response["__typename"] not in ("TerminateRunSuccess", "TerminateRunFailure"):
        _expect(response, "TerminateRunSuccess", run_id)
    state = yield from job_run(run_id)
    if response["__typename"] == "TerminateRunSuccess" or state.status is RunStatus.REVOKED or state.is_stopping:
        return state
    if state.status.is_finished:
        raise RunAlreadyFinished(
            f"Run {run_id} of {state.job} has already finished ({state.status}), so it was not revoked.", state.status
        )
    if response["run"]["status"] in STARTING:
        raise RunStarting(
            f"Run {run_id} of {state.job} was not revoked: it is starting, and Dagster cannot cancel a run at that "
            "point. Revoke it again in a few seconds."
        )
    raise OperationsRefused(
        f"Run {run_id} of {state.job} was not revoked: {response['message']}. Its process may be on another machine. "
        "See the run's page in the Dagster UI."
    )


def _find_run(request_id: str, job: str) -> Workflow[str | None]:
    try:
        response = yield graphql.runs_by_tag_query(job, REQUEST_TAG, request_id)
    except OperationsUnreachable as error:
        raise _launch_uncertain(job, request_id) from error
    if response["__typename"] != "Runs":
        raise _rejection(response, "The earlier launch could not be looked up")
    if not response["results"]:
        return None
    (run,) = response["results"]
    if run["status"] == "NOT_STARTED":
        # It was created but is not queued yet, and it is unknown whether it will be.
        raise _launch_uncertain(job, request_id)
    run_id: str = run["runId"]
    return run_id


def _launch_uncertain(job: str, request_id: str) -> LaunchUncertain:
    return LaunchUncertain(
        f"It is unknown whether {job} was launched, because the response was lost. Launch it again with "
        f"request_id={request_id!r}; if the first launch succeeded, nothing is launched twice.",
        request_id,
    )


def _parse_launch(response: Response, job: str) -> str:
    kind = response["__typename"]
    if kind == "LaunchRunSuccess":
        run_id: str = response["run"]["runId"]
        return run_id
    if kind == "RunConfigValidationInvalid":
        problems = [_simplify_config_error(error["message"]) for error in response["errors"]]
        raise InvalidConfig(f"{job} was not launched, because its config is invalid: {' '.join(problems)}", problems)
    raise _rejection(response, f"{job} was not launched")


def _job_not_found(code_location: Response, job: str) -> SeedTrustError:
    loaded = code_location.get("locationOrLoadError") or {}
    if loaded.get("__typename") != "RepositoryLocation":
        return OperationsUnreachable(
            f"{job} was not launched: Dagster's web server has not loaded the jobs. It loads them as soon as the "
            "worker's code server responds. If it does not, see the page 'Deployment' of the Dagster UI.",
            not_sent=True,
        )
    return UnknownJob(
        f"No job is named {job!r}, so nothing was launched. Check the name; the example jobs exist only if DEV_ENV=1."
    )


def _simplify_config_error(message: str) -> str:
    """Return Dagster's message about a config with the field's name instead of its path, which callers do not know."""
    named = _PATH.sub(lambda path: f" for '{path['field']}'" if path["field"] else "", message)
    simplified = _SAMPLE.sub("", named).strip()
    return simplified if simplified.endswith(".") else f"{simplified}."


def _expect(response: Response, kind: str, run_id: str) -> None:
    if response["__typename"] == "RunNotFoundError":
        raise UnknownRun(
            f"Dagster has no run {run_id!r}. Check the ID; Dagster deletes old runs, but JobRun keeps them."
        )
    if response["__typename"] != kind:
        raise _rejection(response, f"Run {run_id} was not changed")


def _rejection(response: Response, what: str) -> SeedTrustError:
    if response["__typename"] == "UnauthorizedError":
        return OperationsRefused(f"{what}: this web server was started with --read-only. Use a web server without it.")
    if response.get("className") == CODE_SERVER_UNREACHABLE:
        return OperationsUnreachable(
            f"{what}: Dagster's web server cannot reach the code server. It reconnects once the worker is running.",
            not_sent=True,
        )
    message = str(response.get("message") or response["__typename"]).partition("\n")[0].strip()
    # Dagster puts the error's module and class before its message.
    reason = _ERROR_CLASS.sub("", message).rstrip(".")
    return OperationsRefused(f"{what}. Dagster's message: {reason}.")
