"""What the client asks Dagster one after the other to launch a job, see how a run stands, or revoke it.

Each dialogue yields questions, is sent their answers, and returns what the caller wants to know; it does not know how
questions travel, so that the blocking client and the one for asyncio share it.
"""

import re
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from seedtrust_ops.client import graphql
from seedtrust_ops.client.errors import (
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    RunIsOver,
    RunIsStarting,
    UnknownJob,
    UnknownRun,
    WrongConfig,
)
from seedtrust_ops.client.graphql import Question
from seedtrust_ops.client.runs import REQUEST_TAG, RunState, RunStatus, ending_in, run_state
from seedtrust_ops.errors import SeedTrustError

Told = TypeVar("Told")
Answer = Mapping[str, Any]
Dialogue = Generator[Question, Answer, Told]
_PATH = re.compile(r" at (?:the root|path root[^\s.]*?(?::config(?::(?P<field>[^\s.]+))?)?)(?=[\s.]|$)")
_SAMPLE = re.compile(r"\.? Sample config for missing entr(?:y|ies):.*", re.DOTALL)
STARTING = ("NOT_STARTED", "STARTING")
CODE_IS_AWAY = "DagsterUserCodeUnreachableError"


def launch(
    location: str, job: str, config: Mapping[str, Any], tags: Mapping[str, str], *, asked_before: bool
) -> Dialogue[str]:
    """Launch a job under the request id in `tags`; where it may have been asked for before, that run is looked for.

    Returns:
        The run's id.
    """
    request_id = tags[REQUEST_TAG]
    if asked_before:
        found = yield from _run_of_request(request_id, job)
        if found is not None:
            return found
    try:
        answer = yield graphql.launching(location, job, config, tags)
    except OperationsUnreachable as trouble:
        if trouble.nothing_left:
            raise
        found = yield from _run_of_request(request_id, job)
        if found is not None:
            return found
        raise _in_doubt(job, request_id) from trouble
    if answer["__typename"] == "PipelineNotFoundError":
        code = yield graphql.code_of(location)
        raise _why_not_found(code, job)
    return _launched(answer, job)


def job_run(run_id: str) -> Dialogue[RunState]:
    """Say how a run stands, with what it returned or why it failed where it has ended by itself."""
    run = yield graphql.run_of(run_id)
    _expect(run, "Run", run_id)
    state = run_state(run)
    if state.status not in (RunStatus.COMPLETED, RunStatus.ERROR):
        return state
    events: list[Answer] = []
    after = None
    while True:
        page = yield graphql.events_of(run_id, after)
        _expect(page, "Run", run_id)
        connection = page["eventConnection"]
        events += connection["events"]
        after = connection["cursor"]
        if not connection["hasMore"]:
            return run_state(run, ending_in(events))


def revoke(run_id: str) -> Dialogue[RunState]:
    """Cancel a run that waits, ask one that runs to stop; say how it stands afterwards."""
    answer = yield graphql.revocation(run_id)
    if answer["__typename"] not in ("TerminateRunSuccess", "TerminateRunFailure"):
        _expect(answer, "TerminateRunSuccess", run_id)
    state = yield from job_run(run_id)
    if answer["__typename"] == "TerminateRunSuccess" or state.status is RunStatus.REVOKED or state.is_ending:
        return state
    if state.status.is_over:
        raise RunIsOver(
            f"Run {run_id} of {state.job} has ended already ({state.status}), so nothing was revoked.", state.status
        )
    if answer["run"]["status"] in STARTING:
        raise RunIsStarting(
            f"Run {run_id} of {state.job} was not revoked: it was just being started, and Dagster cancels no run in "
            "that moment. Revoke it again in a few seconds."
        )
    raise OperationsRefused(
        f"Run {run_id} of {state.job} was not revoked: {answer['message']}. Its process may be on another machine; "
        "see the run's page in Dagster's UI."
    )


def _run_of_request(request_id: str, job: str) -> Dialogue[str | None]:
    try:
        answer = yield graphql.runs_with(REQUEST_TAG, request_id)
    except OperationsUnreachable as trouble:
        raise _in_doubt(job, request_id) from trouble
    if answer["__typename"] != "Runs":
        raise _refusal(answer, "The run was not looked for")
    if not answer["results"]:
        return None
    (run,) = answer["results"]
    if run["status"] == "NOT_STARTED":
        # It was created and has not reached the queue, and nobody knows yet whether it will.
        raise _in_doubt(job, request_id)
    run_id: str = run["runId"]
    return run_id


def _in_doubt(job: str, request_id: str) -> LaunchUncertain:
    return LaunchUncertain(
        f"Whether {job} was launched is not known: the answer was lost. Launch it again with "
        f"request_id={request_id!r}, which launches nothing where the first one came through.",
        request_id,
    )


def _launched(answer: Answer, job: str) -> str:
    kind = answer["__typename"]
    if kind == "LaunchRunSuccess":
        run_id: str = answer["run"]["runId"]
        return run_id
    if kind == "RunConfigValidationInvalid":
        problems = [_plain(error["message"]) for error in answer["errors"]]
        raise WrongConfig(f"{job} was not launched, because its config is wrong: {' '.join(problems)}", problems)
    raise _refusal(answer, f"{job} was not launched")


def _why_not_found(code: Answer, job: str) -> SeedTrustError:
    loaded = code.get("locationOrLoadError") or {}
    if loaded.get("__typename") != "RepositoryLocation":
        return OperationsUnreachable(
            f"{job} was not launched: Dagster's web server has not loaded the jobs. It does by itself as soon as the "
            "worker's code server answers; its page 'Deployment' says what is wrong if it goes on.",
            nothing_left=True,
        )
    return UnknownJob(
        f"There is no job called {job!r}, so nothing was launched. Check its name; the example jobs are there only "
        "where DEV_ENV=1."
    )


def _plain(message: str) -> str:
    """Return what Dagster says of a config with the field's name for the path to it, which its caller never wrote."""
    named = _PATH.sub(lambda path: f" for '{path['field']}'" if path["field"] else "", message)
    sentence = _SAMPLE.sub("", named).strip()
    return sentence if sentence.endswith(".") else f"{sentence}."


def _expect(answer: Answer, kind: str, run_id: str) -> None:
    if answer["__typename"] == "RunNotFoundError":
        raise UnknownRun(f"Dagster has no run {run_id!r}. Check its id; old runs are deleted, and JobRun keeps them.")
    if answer["__typename"] != kind:
        raise _refusal(answer, f"Run {run_id} was not touched")


def _refusal(answer: Answer, what: str) -> SeedTrustError:
    if answer["__typename"] == "UnauthorizedError":
        return OperationsRefused(f"{what}: this web server was started with --read-only. Use the one that launches.")
    if answer.get("className") == CODE_IS_AWAY:
        return OperationsUnreachable(
            f"{what}: Dagster's web server can't reach the code server. It comes back by itself with the worker.",
            nothing_left=True,
        )
    said = str(answer.get("message") or answer["__typename"]).partition("\n")[0].strip().rstrip(".")
    return OperationsRefused(f"{what}. Dagster says: {said}.")
