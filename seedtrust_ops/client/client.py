"""The blocking client of Dagster's web server: launch a job, look at a run, revoke it.

What is asked and what the answers mean is `dialogues`'; the one for asyncio is `async_operations`.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import Retrying

from seedtrust_ops.client import workflows
from seedtrust_ops.client.errors import OperationsUnreachable
from seedtrust_ops.client.graphql import Question
from seedtrust_ops.client.responses import answer_in, unreachable
from seedtrust_ops.client.runs import RunState
from seedtrust_ops.client.transport import TIMEOUT_SECONDS, Caller, body_of, patience
from seedtrust_ops.client.workflows import Dialogue, Told


class OpsClient:
    """Launches and watches SeedTrust's background jobs; threads may share one. Close it, or use it in `with`."""

    def __init__(
        self,
        url: str,
        *,
        application: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        http: httpx.Client | None = None,
    ) -> None:
        """Take where the web server is; nothing is asked yet.

        Args:
            url: the web server's address, such as http://127.0.0.1:3000.
            application: what calls, such as "platform-api"; every run that it launches bears it.
            timeout_seconds: how long an answer is waited for; `http` has its own.
            http: an httpx client of the caller's, with what a proxy wants to see; it is not closed here.

        Raises:
            ConfigurationError: when `url` is no address.
        """
        self._caller = Caller(url, application)
        self._closes_http = http is None
        self._http = http or httpx.Client(timeout=timeout_seconds, trust_env=False)

    def launch(
        self,
        job: str,
        config: Mapping[str, Any] | None = None,
        *,
        launched_by: str | None = None,
        request_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Put a run of the job into the queue.

        Args:
            job: the job's name, such as `process_huntington_batch`.
            config: the fields of its config, such as `{"batch_id": 7}`.
            launched_by: who asked, such as "user:7", as Dagster's list of runs is to show it; no name, no address.
            request_id: an id of the caller's own for this launch. A second call with it launches nothing where the
                first came through, and returns that run; two at the very same moment may launch two.
            tags: further tags of the run, such as `{"dagster/partition": "2026-03-01"}`.

        Returns:
            The run's id.

        Raises:
            UnknownJob, WrongConfig, OperationsRefused: saying what is wrong; nothing was launched.
            OperationsUnreachable: nothing was launched either.
            LaunchUncertain: when the answer was lost; it carries the `request_id` to launch again with.
        """
        return self._follow(self._caller.launch(job, config, launched_by=launched_by, request_id=request_id, tags=tags))

    def job_run(self, run_id: str) -> RunState:
        """Return how a run stands at Dagster now, in JobRun's words.

        Raises:
            UnknownRun: when there is no such run.
            OperationsRefused, OperationsUnreachable: when Dagster would not or could not say.
        """
        return self._follow(workflows.job_run(run_id))

    def revoke(self, run_id: str) -> RunState:
        """Cancel a run that waits, ask one that runs to stop. Asked twice, it changes nothing more.

        Returns:
            How the run stands: REVOKED, or STARTED with `is_ending` while it gives back what it holds.

        Raises:
            UnknownRun: when there is no such run.
            RunIsOver: when it ended before.
            RunIsStarting: when it has left the queue and not begun; revoke it again in a few seconds.
            OperationsRefused: when it could not be stopped.
            OperationsUnreachable: when Dagster could not be asked; ask again.
        """
        return self._follow(workflows.revoke(run_id))

    def close(self) -> None:
        """Close the connections, but for those of a client that was given."""
        if self._closes_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self, dialogue: Dialogue[Told]) -> Told:
        try:
            question = next(dialogue)
            while True:
                try:
                    answer = Retrying(**patience(question))(self._ask, question)
                except OperationsUnreachable as trouble:
                    question = dialogue.throw(trouble)
                else:
                    question = dialogue.send(answer)
        except StopIteration as end:
            told: Told = end.value
            return told

    def _ask(self, question: Question) -> Mapping[str, Any]:
        address = self._caller.address
        try:
            response = self._http.post(address, json=body_of(question))
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        return answer_in(address, response, question)
