"""Serves one of the sandbox's ASGI applications on loopback and prints its address once it is listening.

`server_process` starts such a process and reads the printed address.
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


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options every sandbox server has: its port, and whether to stop when its parent process exits."""
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 picks a free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the parent process exits")


def listen(port: int) -> socket.socket:
    """Return a socket listening on loopback; a server restarted right after a kill can reuse its old port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    return listener


def print_ready_line(listener: socket.socket) -> None:
    """Print one JSON line {"url", "pid"}, which `server_process.start_server` waits for."""
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


def call_when_stdin_closes(stop: Callable[[], None]) -> None:
    """Call `stop` as soon as the other end of standard input closes, as it does when the parent process exits."""

    def wait() -> None:
        sys.stdin.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


def serve(app: Any, arguments: argparse.Namespace, **options: Any) -> None:
    """Listen, print the address, and serve `app` until it is stopped; `options` are passed to uvicorn."""
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
            # Longer than any client's keep-alive, so that a client never reuses a connection the server just closed.
            timeout_keep_alive=75,
            **options,
        )
    )
    if arguments.until_stdin_closes:

        def stop() -> None:
            server.should_exit = True

        call_when_stdin_closes(stop)
    print_ready_line(listener)
    server.run(sockets=[listener])
