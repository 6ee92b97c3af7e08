"""The client of Dagster's web server for asyncio: `client` with await.

The sequence of requests is in `workflows`.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying

from seedtrust_ops.client import workflows
from seedtrust_ops.client.errors import OperationsUnreachable
from seedtrust_ops.client.graphql import GraphQLRequest
from seedtrust_ops.client.responses import parse_response, unreachable_error
from seedtrust_ops.client.runs import RunState
from seedtrust_ops.client.transport import TIMEOUT_SECONDS, Endpoint, request_body, retry_policy
from seedtrust_ops.client.workflows import Result, Workflow


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
