"""`python -m seedtrust_ops.sandbox.external_services --server=...`: runs one of these servers until it is told to stop.

It prints one JSON line {"url", "pid"} as soon as it listens, and reads nothing but its arguments.
"""

import argparse
from typing import Any

from seedtrust_ops.sandbox.asgi_server import add_serving_arguments, serve
from seedtrust_ops.sandbox.external_services import servers
from seedtrust_ops.sandbox.external_services.s3_server import serve_storage


def main() -> None:
    """Listen, say where, serve."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.external_services", description=__doc__)
    parser.add_argument("--server", required=True, choices=("storage", "cloudfront", "internal-api", "posthog"))
    parser.add_argument("--api-key", default="", help="what clients of the internal API send")
    add_serving_arguments(parser)
    arguments = parser.parse_args()
    apps: dict[str, Any] = {
        "cloudfront": servers.cloudfront,
        "internal-api": lambda: servers.internal_api(arguments.api_key),
        "posthog": servers.posthog,
    }
    if arguments.server == "storage":
        serve_storage(arguments)
    else:
        serve(apps[arguments.server](), arguments)


if __name__ == "__main__":
    main()
