"""Checks whether CloudFront serves its page, and posts the status of a component to SeedTrust's internal API.

`domain/component_checks` decides the status. The internal API's contract is in docs/rules.md, section 8.
"""

import ssl
from functools import cache
from time import monotonic

import httpx

from seedtrust_ops.config.external_services import InternalApiSettings
from seedtrust_ops.ports.component_status import (
    ComponentStatus,
    InternalApiRejected,
    InternalApiUnavailable,
    PageUnavailable,
)

TIMEOUT_SECONDS = 10.0


class CloudFrontPage:
    """One page behind CloudFront."""

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds

    def fetch(self) -> int:
        """Fetch the page and return the latency in milliseconds.

        Raises:
            PageUnavailable: the page was not served completely in time, or was served with an error status.
        """
        started_at = monotonic()
        try:
            with (
                httpx.Client(timeout=self._timeout_seconds, follow_redirects=True) as client,
                client.stream("GET", self._url) as response,
            ):
                for _ in response.iter_raw():
                    # httpx's timeouts restart with every chunk received; this one limits the whole download.
                    if monotonic() - started_at > self._timeout_seconds:
                        raise PageUnavailable(
                            f"{self._url} was not fully downloaded after {self._timeout_seconds:g} seconds."
                        )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise PageUnavailable(f"{self._url} did not respond: {reason.rstrip('.')}.") from error
        if not response.is_success:
            raise PageUnavailable(f"{self._url} responded {response.status_code} {response.reason_phrase}.")
        return round((monotonic() - started_at) * 1000)


class InternalApi:
    """SeedTrust's internal API, which publishes the status of each component."""

    def __init__(self, settings: InternalApiSettings, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = f"{settings.url}/status"
        self._key = settings.key
        self._timeout_seconds = timeout_seconds

    def post(self, status: ComponentStatus) -> None:
        """Post one status; any 2xx response is success.

        Raises:
            InternalApiUnavailable: no response, 429 or 5xx.
            InternalApiRejected: any other response. The message never contains our key.
        """
        body = {
            "component": status.component.value,
            "status": status.status.value,
            "latency_ms": status.latency_ms,
            "checked_at": status.checked_at.isoformat(),
            "detail": status.detail,
        }
        headers = {"X-Internal-Api-Key": self._key.get_secret_value()}
        try:
            response = httpx.post(
                self._url, json=body, headers=headers, timeout=self._timeout_seconds, verify=_tls_context()
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise InternalApiUnavailable(
                f"The internal API {self._url} did not respond: {reason.rstrip('.')}. Check INTERNAL_API_URL. "
                f"The status of {status.component} was not posted."
            ) from error
        if response.is_success:
            return
        result = f"The internal API {self._url} responded {response.status_code} {response.reason_phrase}".rstrip()
        consequence = f"The status of {status.component} was not posted"
        if response.status_code == 429 or response.is_server_error:
            raise InternalApiUnavailable(f"{result}. {consequence}.")
        if response.status_code in (401, 403):
            raise InternalApiRejected(f"{result}. Check INTERNAL_API_KEY. {consequence}.")
        raise InternalApiRejected(f"{result}. Check INTERNAL_API_URL. {consequence}.")


@cache
def _tls_context() -> ssl.SSLContext:
    # Loading the certificate authorities takes longer than most requests: once per process is enough.
    return httpx.create_ssl_context()
