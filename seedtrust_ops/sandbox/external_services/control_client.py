"""Python clients for the servers' control endpoints: read the recorded requests, override the responses.

For tests and the demo. Production clients never call /sandbox.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from seedtrust_ops.sandbox.bank.control_client import NO_CERTIFICATES
from seedtrust_ops.sandbox.external_services.servers import CONTROL, RecordedRequest, captured_events
from seedtrust_ops.sandbox.server_process import ServerProcess, start_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MODULE = "seedtrust_ops.sandbox.external_services"
REGION = "us-east-1"
ACCESS_KEY = "sandbox"


class SandboxServer:
    """A running server; use it in a `with` block to stop it at the end."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.url = server.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.server.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make SeedTrust use this server."""
        raise NotImplementedError

    def restart(self) -> None:
        """Restart it at the same address, if it has stopped."""
        self.server.restart()


class RecordingServer(SandboxServer):
    """A server that records its requests and whose responses can be overridden."""

    def requests(self) -> list[RecordedRequest]:
        """Every request since the last `clear`, oldest first, with the response status."""
        recorded: list[RecordedRequest] = self._call("GET", "requests").json()
        return recorded

    def respond_with(self, status: int | None = None, *, seconds: float = 0) -> None:
        """Respond with `status` (None: the normal response) after `seconds`, until `clear`."""
        self._call("PUT", "response-override", json={"status": status, "seconds": seconds})

    def clear(self) -> None:
        """Delete the recorded requests and respond normally again."""
        self._call("DELETE", "requests")

    def _call(self, method: str, name: str, **options: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, verify=NO_CERTIFICATES, timeout=30) as client:
            return client.request(method, f"{self.url}{CONTROL}/{name}", **options).raise_for_status()


class CloudFrontServer(RecordingServer):
    """The origin that stands in for CloudFront."""

    @property
    def environment(self) -> dict[str, str]:
        """The variable that points at it."""
        return {"CLOUDFRONT_URL": f"{self.url}/health.html"}


class InternalApiServer(RecordingServer):
    """SeedTrust's internal API, which requires `api_key`."""

    def __init__(self, server: ServerProcess, api_key: str) -> None:
        super().__init__(server)
        self.api_key = api_key

    @property
    def environment(self) -> dict[str, str]:
        """The variables that hold its address and its key."""
        return {"INTERNAL_API_URL": self.url, "INTERNAL_API_KEY": self.api_key}

    def posted_statuses(self) -> list[dict[str, Any]]:
        """The status posts that it accepted, oldest first."""
        return [request["body"] for request in self.requests() if request["status"] < 300]


class PostHogServer(RecordingServer):
    """PostHog's capture endpoint."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that hold its address and a project's key."""
        return {"POSTHOG_HOST": self.url, "POSTHOG_API_KEY": "phc_sandbox"}

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The events that it accepted, oldest first; only those called `name` if it is given."""
        events = [event for request in self.requests() if request["status"] < 300 for event in captured_events(request)]
        return [event for event in events if name is None or event.get("event") == name]


class StorageServer(SandboxServer):
    """S3 with one bucket."""

    def __init__(self, server: ServerProcess, bucket: str) -> None:
        super().__init__(server)
        self.bucket = bucket
        self._client: S3Client | None = None
        self.client().create_bucket(Bucket=bucket)

    def restart(self) -> None:
        """Restart it with an empty bucket, if it has stopped: it keeps its objects in memory only."""
        if self.server.has_stopped:
            super().restart()
            self.client().create_bucket(Bucket=self.bucket)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that hold its address and its bucket, boto3's own included."""
        return {
            "REPORTS_BUCKET": self.bucket,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> "S3Client":
        """The boto3 client for it, which does not read the environment."""
        import boto3

        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.url,
                region_name=REGION,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=ACCESS_KEY,
            )
        return self._client

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of the bucket's objects, sorted."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def read(self, key: str) -> bytes:
        """The content of the object."""
        return self.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()


Server = TypeVar("Server", bound=SandboxServer)


def start_cloudfront(port: int = 0) -> CloudFrontServer:
    """Start CloudFront's origin; port 0 picks a free one. Raises RuntimeError, as the others, if it does not start."""
    return _start("cloudfront", CloudFrontServer, port)


def start_internal_api(api_key: str, port: int = 0) -> InternalApiServer:
    """Start the internal API, which requires `api_key`."""
    return _start("internal-api", lambda server: InternalApiServer(server, api_key), port, {"--api-key": api_key})


def start_posthog(port: int = 0) -> PostHogServer:
    """Start PostHog's capture endpoint."""
    return _start("posthog", PostHogServer, port)


def start_storage(bucket: str, port: int = 0) -> StorageServer:
    """Start S3 and create `bucket`."""
    return _start("storage", lambda server: StorageServer(server, bucket), port)


def _start(
    name: str, wrap: Callable[[ServerProcess], Server], port: int, options: dict[str, object] | None = None
) -> Server:
    label = f"The sandbox's {name.replace('-', ' ')} server"
    return wrap(start_server(MODULE, {"--server": name, "--port": port, **(options or {})}, label=label))
