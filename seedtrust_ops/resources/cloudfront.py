"""Fetches the page of CLOUDFRONT_URL, to see whether CloudFront serves and how fast."""

from time import monotonic

import httpx

from seedtrust_ops.ports.component_status import PageNotServed

TIMEOUT_SECONDS = 10.0


class CloudFrontPage:
    """One page behind CloudFront."""

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds

    def fetch(self) -> int:
        """Fetch the page and return how many milliseconds that took.

        Raises:
            PageNotServed: where it does not come whole in time, or comes with an error.
        """
        began = monotonic()
        try:
            with (
                httpx.Client(timeout=self._timeout_seconds, follow_redirects=True) as client,
                client.stream("GET", self._url) as response,
            ):
                for _ in response.iter_raw():
                    # httpx's own timeouts start anew with every piece that drips in; this one does not.
                    if monotonic() - began > self._timeout_seconds:
                        raise PageNotServed(f"{self._url} was not whole after {self._timeout_seconds:g} seconds.")
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise PageNotServed(f"{self._url} did not answer: {reason.rstrip('.')}.") from error
        if not response.is_success:
            raise PageNotServed(f"{self._url} answered {response.status_code} {response.reason_phrase}.")
        return round((monotonic() - began) * 1000)
