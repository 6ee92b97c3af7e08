"""Serves an ASGI application of the sandbox on loopback, in a process that says where it listens.

`starting` is the other end: it starts such a process and reads what it says.
"""

import argparse
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvicorn


def add_serving_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every server of the sandbox is told: its port, and whether it ends with whoever started it."""
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0 takes a free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when whoever started it is gone")


def listen(port: int) -> socket.socket:
    """Return a socket that listens on loopback; a server started again right after a kill gets its old port back."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    return listener


def announce(listener: socket.socket) -> None:
    """Print one JSON line {"url", "pid"}, which `starting.start_server` waits for."""
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


def call_when_stdin_closes(stop: Callable[[], None]) -> None:
    """Call `stop` as soon as whoever holds the other end of standard input is gone."""

    def wait() -> None:
        sys.stdin.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


def serve(app: Any, arguments: argparse.Namespace, **options: Any) -> None:
    """Listen, say where, and serve `app` until told to stop; `options` are uvicorn's."""
    listener = listen(arguments.port)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            # A client that keeps its connections must not find one closed on the second it wants to use it.
            timeout_keep_alive=75,
            **options,
        )
    )
    if arguments.until_stdin_closes:

        def stop() -> None:
            server.should_exit = True

        call_when_stdin_closes(stop)
    announce(listener)
    server.run(sockets=[listener])
