"""The object storage port: the protocols and errors shared by the code that stores files and `resources/s3_storage`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from seedtrust_ops.errors import SeedTrustError, TransientError


class StorageRejected(SeedTrustError):
    """Storage rejected the request: the bucket or object does not exist, or access is denied."""


class StorageUnavailable(TransientError):
    """Storage did not respond, or responded with an error that a retry may fix."""


@dataclass(frozen=True)
class DownloadLink:
    """A URL from which anyone can download one object; `expires_at` is aware, or None if the time is not known."""

    url: str = field(repr=False)
    expires_at: datetime | None


SignLink = Callable[[str, str], DownloadLink]
"""Returns a link that downloads the object at a key as a file of this name; raises a `SeedTrustError` if it cannot."""


class ReportStorage(Protocol):
    """Where reports are stored; each call raises a `SeedTrustError` if it fails."""

    def put_file(self, key: str, path: Path, media_type: str) -> None:
        """Store the file at `path` under `key`."""
        ...

    def delete(self, key: str) -> None:
        """Delete the object at `key`."""
        ...

    def uri(self, key: str) -> str:
        """Return the object's location for people, such as s3://bucket/key."""
        ...


class ObjectStorage(Protocol):
    """What the status check needs from storage; each call raises a `SeedTrustError` if it fails."""

    def put(self, key: str, content: bytes) -> None:
        """Store `content` under `key`."""
        ...

    def get(self, key: str) -> bytes:
        """Return the content of the object at `key`."""
        ...

    def delete(self, key: str) -> None:
        """Delete the object at `key`."""
        ...
