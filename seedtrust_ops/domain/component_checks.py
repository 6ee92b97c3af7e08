"""Checks S3 and CloudFront: up, degraded if slow, down if the check fails.

Posting the status is in `jobs/aws_status_check`; the clients are in `resources`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.component_status import Component, ComponentStatus, Status
from seedtrust_ops.ports.object_storage import ObjectStorage

SLOW_MS = 2_000
"""From this latency on a component is degraded: people notice two seconds."""


def check_storage(storage: ObjectStorage, key: str) -> ComponentStatus:
    """Put, read and delete a small object under `key` and return the status of S3.

    The key must be unique to this check, so that a concurrent check does not delete the object in between.
    """

    def check() -> int:
        content = datetime.now(UTC).isoformat().encode()
        began = monotonic()
        storage.put(key, content)
        read = storage.get(key)
        storage.delete(key)
        if read != content:
            raise _ContentMismatch(f"Object {key} was read back with different content than was written.")
        return round((monotonic() - began) * 1000)

    return _status(Component.S3, check, "Wrote, read and deleted a small object")


def check_page(fetch: Callable[[], int]) -> ComponentStatus:
    """Fetch a page behind CloudFront (`fetch` returns milliseconds or raises) and return the status of CloudFront."""
    return _status(Component.CLOUDFRONT, fetch, "Fetched the page")


class _ContentMismatch(SeedTrustError):
    """The object read differs from the object written."""


def _status(component: Component, check: Callable[[], int], success: str) -> ComponentStatus:
    checked_at = datetime.now(UTC)
    try:
        latency_ms = check()
    except SeedTrustError as error:
        return ComponentStatus(component, Status.DOWN, None, checked_at, str(error))
    status = Status.UP if latency_ms < SLOW_MS else Status.DEGRADED
    slow = "" if status is Status.UP else f", slower than the limit of {SLOW_MS} ms"
    return ComponentStatus(component, status, latency_ms, checked_at, f"{success} in {latency_ms} ms{slow}.")
