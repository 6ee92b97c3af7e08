"""Posts to SeedTrust's internal API how a part of the outside world is (design, section 8)."""

import httpx

from seedtrust_ops.config.external_services import InternalApiSettings
from seedtrust_ops.ports.component_status import ComponentStatus, InternalApiRefused, InternalApiUnreachable
from seedtrust_ops.resources.tls import certificates

TIMEOUT_SECONDS = 10.0


class InternalApi:
    """The API under our key."""

    def __init__(self, settings: InternalApiSettings, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = f"{settings.url}/status"
        self._key = settings.key
        self._timeout_seconds = timeout_seconds

    def post(self, status: ComponentStatus) -> None:
        """Post one status; any answer of 2xx is success.

        Raises:
            InternalApiUnreachable: where no answer came, or 429 or 5xx.
            InternalApiRefused: where it answered anything else; our key is never in the text.
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
                self._url, json=body, headers=headers, timeout=self._timeout_seconds, verify=certificates()
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise InternalApiUnreachable(
                f"The internal API {self._url} did not answer: {reason.rstrip('.')}. Check INTERNAL_API_URL; "
                f"the status of {status.component} was not told."
            ) from error
        if response.is_success:
            return
        answered = f"The internal API {self._url} answered {response.status_code} {response.reason_phrase}".rstrip()
        untold = f"the status of {status.component} was not told"
        if response.status_code == 429 or response.is_server_error:
            raise InternalApiUnreachable(f"{answered}; {untold}.")
        if response.status_code in (401, 403):
            raise InternalApiRefused(f"{answered}: check INTERNAL_API_KEY; {untold}.")
        raise InternalApiRefused(f"{answered}: check INTERNAL_API_URL; {untold}.")
