"""The status of an external component, as the internal API expects it (docs/rules.md, section 8), and its errors."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from seedtrust_ops.errors import SeedTrustError, TransientError


class Component(StrEnum):
    """A component whose status is posted."""

    S3 = "s3"
    CLOUDFRONT = "cloudfront"
    JOBS = "jobs"


class Status(StrEnum):
    """The state of a component."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True)
class ComponentStatus:
    """The status of one component at `checked_at` (aware); `latency_ms` is None if there was no response."""

    component: Component
    status: Status
    latency_ms: int | None
    checked_at: datetime
    detail: str


class InternalApiRejected(SeedTrustError):
    """The internal API rejected our key or the posted status."""


class InternalApiUnavailable(TransientError):
    """The internal API did not respond, or responded with an error that a retry may fix."""


class PageUnavailable(TransientError):
    """A page behind CloudFront was not served, or was served with an error status."""
