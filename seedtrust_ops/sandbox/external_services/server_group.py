"""Starts the four servers in parallel and combines their environment variables."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from seedtrust_ops.sandbox.external_services.control_client import (
    CloudFrontServer,
    InternalApiServer,
    PostHogServer,
    StorageServer,
    start_cloudfront,
    start_internal_api,
    start_posthog,
    start_storage,
)

BUCKET = "seedtrust-reports"


@dataclass(frozen=True)
class ExternalServices:
    """The running servers."""

    storage: StorageServer
    cloudfront: CloudFrontServer
    internal_api: InternalApiServer
    posthog: PostHogServer

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make SeedTrust use all of them."""
        return {
            **self.storage.environment,
            **self.cloudfront.environment,
            **self.internal_api.environment,
            **self.posthog.environment,
        }


@contextmanager
def start_external_services(*, internal_api_key: str, bucket: str = BUCKET) -> Iterator[ExternalServices]:
    """Start all four in parallel and stop them when the block ends.

    Raises:
        RuntimeError: if a server does not start; the message names it, and the others are stopped.
    """
    with ThreadPoolExecutor(4) as threads, ExitStack() as running:
        storage = threads.submit(start_storage, bucket)
        cloudfront = threads.submit(start_cloudfront)
        internal_api = threads.submit(start_internal_api, internal_api_key)
        posthog = threads.submit(start_posthog)
        for future in (storage, cloudfront, internal_api, posthog):
            if future.exception() is None:
                running.enter_context(future.result())
        yield ExternalServices(storage.result(), cloudfront.result(), internal_api.result(), posthog.result())
