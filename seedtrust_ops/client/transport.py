"""What both clients share: the endpoint, the request body, and the retry policy.

`client` and `async_client` send the requests.
"""

import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

import httpx
from tenacity import retry_if_exception, stop_after_attempt, wait_exponential
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from seedtrust_ops.client import workflows
from seedtrust_ops.client.errors import OperationsUnreachable
from seedtrust_ops.client.graphql import GraphQLRequest
from seedtrust_ops.client.workflows import Workflow
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.tag_names import APPLICATION_TAG, PERSON_TAG, REQUEST_TAG

TIMEOUT_SECONDS = 10.0
MAX_ATTEMPTS = 3
INITIAL_BACKOFF_SECONDS = 0.2
LOCATION = "seedtrust_ops"


class Endpoint:
    """Dagster's GraphQL endpoint, and the application that calls it."""

    def __init__(self, url: str, application: str) -> None:
        """Create it; raises ConfigurationError if `url` is not an HTTP URL."""
        try:
            self.graphql_url = httpx.URL(url.rstrip("/") + "/graphql")
        except httpx.InvalidURL:
            self.graphql_url = httpx.URL("")
        if self.graphql_url.scheme not in ("http", "https") or not self.graphql_url.host:
            raise ConfigurationError(f"{url!r} is not the URL of a web server, such as http://127.0.0.1:3000.")
        self._application = application

    def launch(
        self,
        job: str,
        config: Mapping[str, Any] | None,
        *,
        launched_by: str | None,
        request_id: str | None,
        tags: Mapping[str, str] | None,
    ) -> Workflow[str]:
        """Return the workflow of a launch by this application; see `OpsClient.launch`."""
        person = {PERSON_TAG: launched_by} if launched_by else {}
        client_tags = {APPLICATION_TAG: self._application, REQUEST_TAG: request_id or uuid.uuid4().hex}
        return workflows.launch(
            LOCATION, job, config or {}, {**(tags or {}), **person, **client_tags}, may_exist=request_id is not None
        )


class RetryPolicy(TypedDict):
    """Keyword arguments of tenacity's Retrying."""

    retry: retry_base
    stop: stop_base
    wait: wait_base
    reraise: bool


def retry_policy(request: GraphQLRequest) -> RetryPolicy:
    """Return the retry policy of a request; a mutation is repeated only if it was certainly not sent."""

    def can_retry(error: BaseException) -> bool:
        return isinstance(error, OperationsUnreachable) and (request.is_repeatable or error.not_sent)

    return RetryPolicy(
        retry=retry_if_exception(can_retry),
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_exponential(multiplier=INITIAL_BACKOFF_SECONDS),
        reraise=True,
    )


def request_body(request: GraphQLRequest) -> dict[str, Any]:
    """Return the JSON body of a GraphQL request."""
    return {"query": request.document, "variables": request.variables}
