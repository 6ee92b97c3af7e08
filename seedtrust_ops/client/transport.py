"""What the two clients have in common: whom they call, in whose name, and how patiently.

How a question travels is the clients' own, `operations` and `async_operations`.
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
from seedtrust_ops.client.graphql import Question
from seedtrust_ops.client.runs import APPLICATION_TAG, PERSON_TAG, REQUEST_TAG
from seedtrust_ops.client.workflows import Dialogue
from seedtrust_ops.errors import ConfigurationError

TIMEOUT_SECONDS = 10.0
TRIES = 3
FIRST_PAUSE_SECONDS = 0.2
LOCATION = "seedtrust_ops"


class Caller:
    """An application that calls the web server at an address."""

    def __init__(self, url: str, application: str) -> None:
        """Take both; ConfigurationError where `url` is no address."""
        try:
            self.address = httpx.URL(url.rstrip("/") + "/graphql")
        except httpx.InvalidURL:
            self.address = httpx.URL("")
        if self.address.scheme not in ("http", "https") or not self.address.host:
            raise ConfigurationError(f"{url!r} is no address of a web server, such as http://127.0.0.1:3000.")
        self._application = application

    def launch(
        self,
        job: str,
        config: Mapping[str, Any] | None,
        *,
        launched_by: str | None,
        request_id: str | None,
        tags: Mapping[str, str] | None,
    ) -> Dialogue[str]:
        """Return the dialogue of a launch in this application's name; see `OpsClient.launch`."""
        person = {PERSON_TAG: launched_by} if launched_by else {}
        own = {APPLICATION_TAG: self._application, REQUEST_TAG: request_id or uuid.uuid4().hex}
        return workflows.launch(
            LOCATION, job, config or {}, {**(tags or {}), **person, **own}, asked_before=request_id is not None
        )


class Patience(TypedDict):
    """How tenacity is to try again."""

    retry: retry_base
    stop: stop_base
    wait: wait_base
    reraise: bool


def patience(question: Question) -> Patience:
    """Return how often `question` is asked: what changes something only again where it surely reached nobody."""

    def asks_again(error: BaseException) -> bool:
        return isinstance(error, OperationsUnreachable) and (question.repeatable or error.nothing_left)

    return Patience(
        retry=retry_if_exception(asks_again),
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential(multiplier=FIRST_PAUSE_SECONDS),
        reraise=True,
    )


def body_of(question: Question) -> dict[str, Any]:
    """Return the JSON of a request to GraphQL."""
    return {"query": question.document, "variables": question.variables}
