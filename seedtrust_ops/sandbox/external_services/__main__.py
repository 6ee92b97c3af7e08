"""`python -m seedtrust_ops.sandbox.external_services --server=...`: runs one of these servers until it is stopped.

It prints one JSON line {"url", "pid"} once it is listening. It is configured by its arguments alone.
"""

import argparse
from typing import Any

from seedtrust_ops.sandbox.asgi_server import add_server_arguments, serve
from seedtrust_ops.sandbox.external_services import servers
from seedtrust_ops.sandbox.external_services.s3_server import serve_storage


def main() -> None:
    """Run the server named by `--server`."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.external_services", description=__doc__)
    parser.add_argument("--server", required=True, choices=("storage", "cloudfront", "internal-api", "posthog"))
    parser.add_argument("--api-key", default="", help="the key that clients of the internal API must send")
    add_server_arguments(parser)
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
