"""Decides how S3 and CloudFront are: up, degraded where they are slow, down where a check fails.

Whom that is told to, and how a vendor is spoken to, is not here.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.component_status import Component, ComponentStatus, Status
from seedtrust_ops.ports.object_storage import ObjectStorage

SLOW_MS = 2_000
"""From here on a component is degraded: people notice two seconds."""


def check_storage(storage: ObjectStorage, key: str) -> ComponentStatus:
    """Put a small object under `key`, read it, delete it, and say how that went.

    The key must be this check's own: another check at the same time must not delete the object in between.
    """

    def check() -> int:
        content = datetime.now(UTC).isoformat().encode()
        began = monotonic()
        storage.put(key, content)
        read = storage.get(key)
        storage.delete(key)
        if read != content:
            raise _Differs(f"The object {key} came back with other content than was put.")
        return round((monotonic() - began) * 1000)

    return _status(Component.S3, check, "A small object was put, read and deleted")


def check_page(fetch: Callable[[], int]) -> ComponentStatus:
    """Fetch a page behind CloudFront (`fetch` returns milliseconds or raises) and say how that went."""
    return _status(Component.CLOUDFRONT, fetch, "The page came")


class _Differs(SeedTrustError):
    """What was read is not what was put."""


def _status(component: Component, check: Callable[[], int], good: str) -> ComponentStatus:
    checked_at = datetime.now(UTC)
    try:
        latency_ms = check()
    except SeedTrustError as error:
        return ComponentStatus(component, Status.DOWN, None, checked_at, str(error))
    status = Status.UP if latency_ms < SLOW_MS else Status.DEGRADED
    slow = "" if status is Status.UP else f", slower than the {SLOW_MS} ms that count as good"
    return ComponentStatus(component, status, latency_ms, checked_at, f"{good} in {latency_ms} ms{slow}.")
