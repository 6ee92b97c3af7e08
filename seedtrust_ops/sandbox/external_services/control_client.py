"""Python clients for the control side of these servers, for tests and the demo: what came in, and how to answer.

They are not the clients of production: those know nothing of /sandbox.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from seedtrust_ops.sandbox.bank.control_client import NO_CERTIFICATES
from seedtrust_ops.sandbox.external_services.recording_server import CONTROL, Kept
from seedtrust_ops.sandbox.external_services.servers import events_of
from seedtrust_ops.sandbox.server_process import ServerProcess, start_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MODULE = "seedtrust_ops.sandbox.external_services"
REGION = "us-east-1"
ACCESS_KEY = "sandbox"


class OutsideServer:
    """A running server; `with` stops it at the end."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.url = server.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.server.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make SeedTrust use this server."""
        raise NotImplementedError

    def revive(self) -> None:
        """Start it again at its old address where it has died."""
        self.server.revive()


class KeepingServer(OutsideServer):
    """A server that keeps its requests and answers as it is told to."""

    def kept(self) -> list[Kept]:
        """Every request since the last `clear`, oldest first, with the status that it was answered with."""
        kept: list[Kept] = self._call("GET", "kept").json()
        return kept

    def answer_with(self, status: int | None = None, *, seconds: float = 0) -> None:
        """Answer from now on with `status` (None: as it should), `seconds` late, until `clear`."""
        self._call("PUT", "behaviour", json={"status": status, "seconds": seconds})

    def clear(self) -> None:
        """Forget the requests and answer well again."""
        self._call("DELETE", "kept")

    def _call(self, method: str, name: str, **options: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, verify=NO_CERTIFICATES, timeout=30) as client:
            return client.request(method, f"{self.url}{CONTROL}/{name}", **options).raise_for_status()


class CloudFrontServer(KeepingServer):
    """The origin that stands in for CloudFront."""

    @property
    def environment(self) -> dict[str, str]:
        """The variable that names it."""
        return {"CLOUDFRONT_URL": f"{self.url}/health.html"}


class InternalApiServer(KeepingServer):
    """SeedTrust's internal API, under one key."""

    def __init__(self, server: ServerProcess, api_key: str) -> None:
        super().__init__(server)
        self.api_key = api_key

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it and its key."""
        return {"INTERNAL_API_URL": self.url, "INTERNAL_API_KEY": self.api_key}

    def posts(self) -> list[dict[str, Any]]:
        """The statuses that it took, oldest first."""
        return [kept["body"] for kept in self.kept() if kept["status"] < 300]


class PostHogServer(KeepingServer):
    """PostHog's capture endpoint."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it and a project."""
        return {"POSTHOG_HOST": self.url, "POSTHOG_API_KEY": "phc_sandbox"}

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The events that it took, oldest first, or those of one name."""
        events = [event for kept in self.kept() if kept["status"] < 300 for event in events_of(kept)]
        return [event for event in events if name is None or event.get("event") == name]


class StorageServer(OutsideServer):
    """S3 with one bucket."""

    def __init__(self, server: ServerProcess, bucket: str) -> None:
        super().__init__(server)
        self.bucket = bucket
        self.client().create_bucket(Bucket=bucket)

    def revive(self) -> None:
        """Start it again with an empty bucket where it has died: it keeps its objects in its memory."""
        if self.server.is_dead:
            super().revive()
            self.client().create_bucket(Bucket=self.bucket)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it and its bucket, among them boto3's own."""
        return {
            "REPORTS_BUCKET": self.bucket,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> "S3Client":
        """A boto3 client of it that reads no environment."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=ACCESS_KEY,
        )

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of the bucket's objects, sorted."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", []))

    def read(self, key: str) -> bytes:
        """What the object holds."""
        return self.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()


Server = TypeVar("Server", bound=OutsideServer)


def start_cloudfront(port: int = 0) -> CloudFrontServer:
    """Start CloudFront's origin; port 0 takes a free one. Raises RuntimeError, as the others, where it stays silent."""
    return _start("cloudfront", CloudFrontServer, port)


def start_internal_api(api_key: str, port: int = 0) -> InternalApiServer:
    """Start the internal API under `api_key`."""
    return _start("internal-api", lambda server: InternalApiServer(server, api_key), port, {"--api-key": api_key})


def start_posthog(port: int = 0) -> PostHogServer:
    """Start PostHog's capture endpoint."""
    return _start("posthog", PostHogServer, port)


def start_storage(bucket: str, port: int = 0) -> StorageServer:
    """Start S3 and make `bucket`."""
    return _start("storage", lambda server: StorageServer(server, bucket), port)


def _start(
    name: str, made: Callable[[ServerProcess], Server], port: int, options: dict[str, object] | None = None
) -> Server:
    what = f"The sandbox's {name.replace('-', ' ')}"
    return made(start_server(MODULE, {"--server": name, "--port": port, **(options or {})}, what=what))
