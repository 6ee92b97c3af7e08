"""What both clients share: the endpoint, the request body, the retry policy, and reading a response.

`client` sends the requests, and `workflows` interprets the results.
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
from seedtrust_ops.client.errors import OperationsRefused, OperationsUnreachable
from seedtrust_ops.client.graphql import GraphQLRequest
from seedtrust_ops.client.workflows import Workflow
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.tag_names import APPLICATION_TAG, PERSON_TAG, REQUEST_TAG

TIMEOUT_SECONDS = 10.0
MAX_ATTEMPTS = 3
INITIAL_BACKOFF_SECONDS = 0.2
LOCATION = "seedtrust_ops"
RUN_REFUSED = "RunRefused"
"""The error of `run_admission`, which this package does not import, because it needs Dagster."""
NOT_SENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Errors before a connection was made, so that the request cannot have reached the server."""


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


def unreachable_error(url: httpx.URL, error: httpx.HTTPError) -> OperationsUnreachable:
    """Return the error for a request without a complete response."""
    not_sent = isinstance(error, NOT_SENT_ERRORS)
    reason = (str(error) or type(error).__name__).rstrip(".")
    consequence = "The request was not sent" if not_sent else "It is unknown whether the request was executed"
    return OperationsUnreachable(
        f"Dagster's web server at {url} did not respond: {reason}. {consequence}. Check the URL and whether the server "
        "is running.",
        not_sent=not_sent,
    )


def _is_refusal(body: Mapping[str, Any], request: GraphQLRequest) -> bool:
    """Return whether the queue refused a run. To Dagster that is a server error, but nothing was launched."""
    data = body.get("data")
    result = data.get(request.field) if isinstance(data, dict) else None
    return isinstance(result, dict) and result.get("className") == RUN_REFUSED


def parse_response(url: httpx.URL, response: httpx.Response, request: GraphQLRequest) -> Mapping[str, Any]:
    """Return the result of `request`.

    Raises:
        OperationsRefused: the server, or a proxy in front of it, rejected the request.
        OperationsUnreachable: the response is a server error or unreadable.
    """
    status = f"{response.status_code} {response.reason_phrase}".rstrip()
    try:
        body = response.json()
    except ValueError:
        body = None
    is_graphql = isinstance(body, dict) and bool({"data", "errors"} & body.keys())
    if (response.status_code in (401, 403) and not is_graphql) or response.is_redirect:
        raise OperationsRefused(
            f"{url} requires a login (it responded {status}), so nothing was done. Use the web server's own URL, or "
            "pass an httpx client with the credentials for the proxy."
        )
    is_error = response.is_server_error and not (is_graphql and _is_refusal(body, request))
    if is_error or response.status_code in (408, 429):
        raise OperationsUnreachable(f"Dagster's web server at {url} responded {status}.", not_sent=False)
    if not is_graphql:
        if response.is_client_error:
            raise OperationsRefused(
                f"{url} responded {status}, so it is not a Dagster web server. Check the URL; nothing was done."
            )
        raise OperationsUnreachable(
            f"{url} did not respond with GraphQL. Check that it is Dagster's web server.",
            not_sent=False,
        )
    result = (body.get("data") or {}).get(request.field)
    if not isinstance(result, dict):
        reason = "; ".join(str(error.get("message")) for error in body.get("errors") or ()) or "it gave no reason"
        raise OperationsRefused(f"Dagster's web server at {url} rejected the request: {reason.rstrip('.')}.")
    return result
