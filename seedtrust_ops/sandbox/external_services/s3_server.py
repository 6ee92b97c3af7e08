"""A local S3 server: moto, which keeps its objects in memory."""

import argparse
import logging

from seedtrust_ops.sandbox.asgi_server import call_when_stdin_closes, listen, print_ready_line


def serve_storage(arguments: argparse.Namespace) -> None:
    """Listen, print the address, and serve S3 until the process is stopped."""
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
