"""The client of Dagster's web server for asyncio, as FastAPI wants it: `operations` with awaits.

What is asked and what the answers mean is `dialogues`'.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying

from seedtrust_ops.client import workflows
from seedtrust_ops.client.errors import OperationsUnreachable
from seedtrust_ops.client.graphql import Question
from seedtrust_ops.client.responses import answer_in, unreachable
from seedtrust_ops.client.runs import RunState
from seedtrust_ops.client.transport import TIMEOUT_SECONDS, Caller, body_of, patience
from seedtrust_ops.client.workflows import Dialogue, Told


class AsyncOpsClient:
    """`OpsClient` for asyncio: the same methods, to be awaited. Close it, or use it in `async with`."""

    def __init__(
        self,
        url: str,
        *,
        application: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Take where the web server is; see `OpsClient`."""
        self._caller = Caller(url, application)
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
        """Put a run of the job into the queue; see `OpsClient.launch`."""
        return await self._follow(
            self._caller.launch(job, config, launched_by=launched_by, request_id=request_id, tags=tags)
        )

    async def job_run(self, run_id: str) -> RunState:
        """Return how a run stands at Dagster now; see `OpsClient.job_run`."""
        return await self._follow(workflows.job_run(run_id))

    async def revoke(self, run_id: str) -> RunState:
        """Cancel a run that waits, ask one that runs to stop; see `OpsClient.revoke`."""
        return await self._follow(workflows.revoke(run_id))

    async def aclose(self) -> None:
        """Close the connections, but for those of a client that was given."""
        if self._closes_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _follow(self, dialogue: Dialogue[Told]) -> Told:
        try:
            question = next(dialogue)
            while True:
                try:
                    answer: Mapping[str, Any] = await AsyncRetrying(**patience(question))(self._ask, question)
                except OperationsUnreachable as trouble:
                    question = dialogue.throw(trouble)
                else:
                    question = dialogue.send(answer)
        except StopIteration as end:
            told: Told = end.value
            return told

    async def _ask(self, question: Question) -> Mapping[str, Any]:
        address = self._caller.address
        try:
            response = await self._http.post(address, json=body_of(question))
        except httpx.HTTPError as error:
            raise unreachable(address, error) from error
        return answer_in(address, response, question)
