"""The clients of Dagster's web server, blocking and for asyncio: they launch, read and revoke runs.

They send what the generators in `workflows` yield, which hold the sequence of requests.
See docs/decisions/ops-client.md.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, Retrying

from seedtrust_ops.client import workflows
from seedtrust_ops.client.errors import OperationsUnreachable
from seedtrust_ops.client.graphql import GraphQLRequest
from seedtrust_ops.client.runs import RunState
from seedtrust_ops.client.transport import (
    TIMEOUT_SECONDS,
    Endpoint,
    parse_response,
    request_body,
    retry_policy,
    unreachable_error,
)
from seedtrust_ops.client.workflows import Result, Workflow


class OpsClient:
    """Launches, reads and revokes runs of SeedTrust's background jobs.

    It is thread-safe. Close it, or use it in `with`.
    """

    def __init__(
        self,
        url: str,
        *,
        application: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        http: httpx.Client | None = None,
    ) -> None:
        """Create a client; nothing is sent yet.

        Args:
            url: the URL of Dagster's web server, such as http://127.0.0.1:3000.
            application: the name of the calling application, such as "platform-api"; a tag of every run it launches.
            timeout_seconds: the timeout of one request; unused if `http` is given.
            http: an httpx client to use instead of a new one, for example with a proxy's credentials. The caller
                closes it.

        Raises:
            ConfigurationError: if `url` is not an HTTP URL.
        """
        self._endpoint = Endpoint(url, application)
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
        """Queue a run of a job.

        Args:
            job: the job's name, such as `process_huntington_batch`.
            config: the fields of the job's config, such as `{"batch_id": 7}`.
            launched_by: the person who launched it, such as "user:7", shown in Dagster's list of runs. Do not pass a
                name or an email address.
            request_id: an idempotency key for this launch. If a launch with it succeeded before, nothing is launched
                and that run is returned. Two simultaneous calls may launch two runs.
            tags: additional tags of the run, such as `{"dagster/partition": "2026-03-01"}`.

        Returns:
            The run's ID.

        Raises:
            UnknownJob, InvalidConfig, OperationsRefused: the message says what is wrong; nothing was launched.
            OperationsUnreachable: nothing was launched.
            LaunchUncertain: the response was lost; launch again with its `request_id`.
        """
        return self._run(self._endpoint.launch(job, config, launched_by=launched_by, request_id=request_id, tags=tags))

    def job_run(self, run_id: str) -> RunState:
        """Return the current state of a run, with JobRun's statuses.

        Raises:
            UnknownRun: Dagster has no run with this ID.
            OperationsRefused: Dagster rejected the request.
            OperationsUnreachable: Dagster did not respond; try again.
        """
        return self._run(workflows.job_run(run_id))

    def revoke(self, run_id: str) -> RunState:
        """Cancel a queued run, or stop a running one. It is idempotent.

        Returns:
            The run's state: REVOKED, or STARTED with `is_stopping` while the run shuts down.

        Raises:
            UnknownRun: Dagster has no run with this ID.
            RunAlreadyFinished: the run had finished before.
            RunStarting: the run has left the queue but not started; revoke it again in a few seconds.
            OperationsRefused: the run could not be stopped.
            OperationsUnreachable: Dagster did not respond; try again.
        """
        return self._run(workflows.revoke(run_id))

    def close(self) -> None:
        """Close the connections, except those of an httpx client that the caller passed in."""
        if self._closes_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, workflow: Workflow[Result]) -> Result:
        try:
            request = next(workflow)
            while True:
                try:
                    response = Retrying(**retry_policy(request))(self._send, request)
                except OperationsUnreachable as error:
                    request = workflow.throw(error)
                else:
                    request = workflow.send(response)
        except StopIteration as stop:
            result: Result = stop.value
            return result

    def _send(self, request: GraphQLRequest) -> Mapping[str, Any]:
        url = self._endpoint.graphql_url
        try:
            response = self._http.post(url, json=request_body(request))
        except httpx.HTTPError as error:
            raise unreachable_error(url, error) from error
        return parse_response(url, response, request)


class AsyncOpsClient:
    """`OpsClient` for asyncio, with the same methods as coroutines. Close it, or use it in `async with`."""

    def __init__(
        self,
        url: str,
        *,
        application: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Create a client; see `OpsClient`. Nothing is sent yet."""
        self._endpoint = Endpoint(url, application)
        self._closes_http = http is None
        self._http = http or httpx.AsyncClient(timeout=timeout_seconds, trust_env=False)

    async def launch(
        self,
        job: str,
        config: Mapping[str, Any] | None = None,
        *,
        launched_by: str | None = None,
        request_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Queue a run of a job; see `OpsClient.launch`."""
        return await self._run(
            self._endpoint.launch(job, config, launched_by=launched_by, request_id=request_id, tags=tags)
        )

    async def job_run(self, run_id: str) -> RunState:
        """Return the current state of a run; see `OpsClient.job_run`."""
        return await self._run(workflows.job_run(run_id))

    async def revoke(self, run_id: str) -> RunState:
        """Cancel a queued run or stop a running one; see `OpsClient.revoke`."""
        return await self._run(workflows.revoke(run_id))

    async def aclose(self) -> None:
        """Close the connections, except those of an httpx client that the caller passed in."""
        if self._closes_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, workflow: Workflow[Result]) -> Result:
        try:
            request = next(workflow)
            while True:
                try:
                    response: Mapping[str, Any] = await AsyncRetrying(**retry_policy(request))(self._send, request)
                except OperationsUnreachable as error:
                    request = workflow.throw(error)
                else:
                    request = workflow.send(response)
        except StopIteration as stop:
            result: Result = stop.value
            return result

    async def _send(self, request: GraphQLRequest) -> Mapping[str, Any]:
        url = self._endpoint.graphql_url
        try:
            response = await self._http.post(url, json=request_body(request))
        except httpx.HTTPError as error:
            raise unreachable_error(url, error) from error
        return parse_response(url, response, request)
