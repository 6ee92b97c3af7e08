"""Parses the responses of Dagster's web server, and explains a response that is not a GraphQL result.

`workflows` interprets the results.
"""

from collections.abc import Mapping
from typing import Any

import httpx

from seedtrust_ops.client.errors import OperationsRefused, OperationsUnreachable
from seedtrust_ops.client.graphql import GraphQLRequest

NOT_SENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Errors before a connection was made, so that the request cannot have reached the server."""


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


def parse_response(url: httpx.URL, response: httpx.Response, request: GraphQLRequest) -> Mapping[str, Any]:
    """Return the result of `request`.

    Raises:
        OperationsRefused: the server, or a proxy in front of it, rejected the request.
        OperationsUnreachable: the response is a server error or unreadable.
    """
    status = f"{response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code in (401, 403) or response.is_redirect:
        raise OperationsRefused(
            f"{url} requires a login (it responded {status}), so nothing was done. Use the web server's own URL, or "
            "pass an httpx client with the credentials for the proxy."
        )
    if response.is_server_error or response.status_code in (408, 429):
        raise OperationsUnreachable(f"Dagster's web server at {url} responded {status}.", not_sent=False)
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not ({"data", "errors"} & body.keys()):
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
        reason = "; ".join(str(error.get("message")) for error in body.get("errors") or ())
        raise OperationsRefused(f"Dagster's web server at {url} rejected the request: {reason or 'it gave no reason'}.")
    return result
