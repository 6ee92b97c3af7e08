"""What storage says: the words that those who keep files and those who carry them to S3 share."""

from pathlib import Path
from typing import Protocol

from seedtrust_ops.errors import SeedTrustError, TransientError


class StorageRefused(SeedTrustError):
    """Storage will not do this as it is: there is no such bucket or object, or we are not let in."""


class StorageUnreachable(TransientError):
    """Storage gave no good answer; it may give one in a moment."""


class Storage(Protocol):
    """Where reports are kept; each call raises an `SeedTrustError` where it fails."""

    def put_file(self, key: str, path: Path, media_type: str) -> None:
        """Keep the file at `path` under `key`."""
        ...

    def delete(self, key: str) -> None:
        """Remove what is kept under `key`."""
        ...

    def link(self, key: str, filename: str) -> str:
        """Return an address under which the file can be fetched for 7 days, as a file of that name."""
        ...

    def place(self, key: str) -> str:
        """Return where the file is, as people write it."""
        ...


class ObjectStorage(Protocol):
    """What the check needs of storage; each call raises an `SeedTrustError` where it fails."""

    def put(self, key: str, content: bytes) -> None:
        """Keep `content` under `key`."""
        ...

    def get(self, key: str) -> bytes:
        """Return what is kept under `key`."""
        ...

    def delete(self, key: str) -> None:
        """Remove what is kept under `key`."""
        ...
