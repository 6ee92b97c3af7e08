"""`python -m seedtrust_ops.sandbox.external_services --server=...`: runs one of these servers until it is stopped.

It prints one JSON line {"url", "pid"} once it is listening. It is configured by its arguments alone.
"""

import argparse
import logging
from typing import Any

from seedtrust_ops.sandbox.asgi_server import (
    add_server_arguments,
    call_when_stdin_closes,
    listen,
    print_ready_line,
    serve,
)
from seedtrust_ops.sandbox.external_services import servers


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
        _serve_storage(arguments)
    else:
        serve(apps[arguments.server](), arguments)


def _serve_storage(arguments: argparse.Namespace) -> None:
    """Serve S3 with moto, which keeps its objects in memory, until the process is stopped."""
    # Importing moto takes half a second, which the other servers should not pay for.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    listener = listen(arguments.port)
    server = make_server(
        "127.0.0.1",
        listener.getsockname()[1],
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener.fileno(),
    )
    if arguments.until_stdin_closes:
        call_when_stdin_closes(server.shutdown)
    print_ready_line(listener)
    server.serve_forever()


if __name__ == "__main__":
    main()
