"""Starts the four servers at once, and names them all in one environment."""

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
class OutsideWorld:
    """The running servers, and the variables that make SeedTrust use them."""

    storage: StorageServer
    cloudfront: CloudFrontServer
    internal_api: InternalApiServer
    posthog: PostHogServer

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name all of them."""
        return {
            **self.storage.environment,
            **self.cloudfront.environment,
            **self.internal_api.environment,
            **self.posthog.environment,
        }


@contextmanager
def start_outside_world(*, internal_api_key: str, bucket: str = BUCKET) -> Iterator[OutsideWorld]:
    """Start all four side by side and stop them when the block ends.

    Raises:
        RuntimeError: saying which one did not come up; those that did are stopped.
    """
    with ThreadPoolExecutor(4) as threads, ExitStack() as running:
        storage = threads.submit(start_storage, bucket)
        cloudfront = threads.submit(start_cloudfront)
        internal_api = threads.submit(start_internal_api, internal_api_key)
        posthog = threads.submit(start_posthog)
        for future in (storage, cloudfront, internal_api, posthog):
            if future.exception() is None:
                running.enter_context(future.result())
        yield OutsideWorld(storage.result(), cloudfront.result(), internal_api.result(), posthog.result())
