"""S3 on one laptop: moto's server, which keeps its objects in memory, with a few calls to look into it."""

import argparse
import logging

from seedtrust_ops.sandbox.asgi_server import announce, call_when_stdin_closes, listen


def serve_storage(arguments: argparse.Namespace) -> None:
    """Listen, say where, and serve S3 until told to stop."""
    # moto is half a second of imports, which the other servers need not wait for.
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
    announce(listener)
    server.serve_forever()
