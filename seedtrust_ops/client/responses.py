"""Reads what came back from the web server, or says in a sentence why it is no answer.

What the answer means is `dialogues`'.
"""

from collections.abc import Mapping
from typing import Any

import httpx

from seedtrust_ops.client.errors import OperationsRefused, OperationsUnreachable
from seedtrust_ops.client.graphql import Question

NOTHING_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Where no connection was made, so that the question can't have reached anybody."""


def unreachable(url: httpx.URL, error: httpx.HTTPError) -> OperationsUnreachable:
    """Return what is said where no whole answer came."""
    nothing_left = isinstance(error, NOTHING_LEFT)
    reason = (str(error) or type(error).__name__).rstrip(".")
    sent = "Nothing was sent" if nothing_left else "Whether it did what it was asked is not known"
    return OperationsUnreachable(
        f"Dagster's web server at {url} did not answer: {reason}. {sent}. Check the address, and whether it runs.",
        nothing_left=nothing_left,
    )


def answer_in(url: httpx.URL, response: httpx.Response, question: Question) -> Mapping[str, Any]:
    """Return the answer to `question`.

    Raises:
        OperationsRefused: where the server, or a proxy before it, won't talk to us.
        OperationsUnreachable: where the answer is an error of the server, or can't be read.
    """
    status = f"{response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code in (401, 403) or response.is_redirect:
        raise OperationsRefused(
            f"{url} wants a login (it answered {status}), so nothing was done. Name the web server itself, or give the "
            "client an httpx client with what the proxy before it asks for."
        )
    if response.is_server_error or response.status_code in (408, 429):
        raise OperationsUnreachable(f"Dagster's web server at {url} answered {status}.", nothing_left=False)
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not ({"data", "errors"} & body.keys()):
        if response.is_client_error:
            raise OperationsRefused(
                f"{url} answered {status}: it is no Dagster web server. Check the address; nothing was done."
            )
        raise OperationsUnreachable(
            f"{url} answered with something that is not GraphQL's. Check that it is Dagster's web server.",
            nothing_left=False,
        )
    answer = (body.get("data") or {}).get(question.field)
    if not isinstance(answer, dict):
        said = "; ".join(str(error.get("message")) for error in body.get("errors") or ())
        raise OperationsRefused(
            f"Dagster's web server at {url} did not take the question: {said or 'it gave no reason'}."
        )
    return answer
