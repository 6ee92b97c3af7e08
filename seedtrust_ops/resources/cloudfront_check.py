"""Fetches the page at CLOUDFRONT_URL, to check that CloudFront serves it and how fast."""

from time import monotonic

import httpx

from seedtrust_ops.ports.component_status import PageUnavailable

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
