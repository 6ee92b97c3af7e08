"""`python -m seedtrust_ops.sandbox.bank`: runs one sandbox bank until it is told to stop.

It prints one JSON line {"url", "pid"} as soon as it listens, and reads nothing but its arguments.
"""

import argparse
import json
import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from seedtrust_ops.sandbox.bank.connections import BankProtocol
from seedtrust_ops.sandbox.bank.server import Bank, BankSettings


def main() -> None:
    """Listen, say where, serve."""
    arguments = _parser().parse_args()
    settings = BankSettings(**{name: getattr(arguments, name) for name in BankSettings.model_fields})
    bank = Bank(settings)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A bank that is started again right after a kill must get its old port back.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", arguments.port))
    listener.listen(2048)
    server = uvicorn.Server(
        uvicorn.Config(
            bank.app,
            http=BankProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            # A client that keeps its connections must not find one closed on the second it wants to use it.
            timeout_keep_alive=75,
        )
    )
    if arguments.until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    server.run(sockets=[listener])


def _stop_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


def _parser() -> argparse.ArgumentParser:
    def default(name: str) -> object:
        return BankSettings.model_fields[name].default

    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.bank", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0 takes a free one")
    parser.add_argument("--database", type=Path, required=True, help="the bank's file, made where it is missing")
    parser.add_argument("--api-key", required=True, help="what clients send as bearer token")
    parser.add_argument("--funding-account-id", default=default("funding_account_id"))
    parser.add_argument(
        "--available-cents",
        type=int,
        default=default("available_cents"),
        help="the funding account's opening balance",
    )
    parser.add_argument(
        "--ach-settlement-seconds",
        type=float,
        default=default("ach_settlement_seconds"),
        help="from accepted to completed",
    )
    parser.add_argument("--latency-ms", type=float, default=default("latency_ms"), help="added to every /v1 request")
    parser.add_argument("--page-size", type=int, default=default("page_size"), help="transfers on one page")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when whoever started the bank is gone")
    return parser


if __name__ == "__main__":
    main()
