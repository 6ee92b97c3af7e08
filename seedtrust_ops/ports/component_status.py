"""How a part of the outside world is, in the words of the internal API (design, section 8)."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from seedtrust_ops.errors import SeedTrustError, TransientError


class Component(StrEnum):
    """What has a status."""

    S3 = "s3"
    CLOUDFRONT = "cloudfront"
    JOBS = "jobs"


class Status(StrEnum):
    """How it is."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True)
class ComponentStatus:
    """How one component was at `checked_at` (aware); `latency_ms` is None where nothing answered."""

    component: Component
    status: Status
    latency_ms: int | None
    checked_at: datetime
    detail: str


class InternalApiRefused(SeedTrustError):
    """The internal API does not take what we post, or does not know our key."""


class InternalApiUnreachable(TransientError):
    """The internal API gave no good answer."""


class PageNotServed(TransientError):
    """A page behind CloudFront did not come, or came with an error."""
