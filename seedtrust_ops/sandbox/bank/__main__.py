"""`python -m seedtrust_ops.sandbox.bank`: runs one sandbox bank until it is told to stop.

It prints one JSON line {"url", "pid"} as soon as it listens, and reads nothing but its arguments.
"""

import argparse
from pathlib import Path

from seedtrust_ops.sandbox.asgi_server import add_serving_arguments, serve
from seedtrust_ops.sandbox.bank.faulty_responses import BankProtocol
from seedtrust_ops.sandbox.bank.server import Bank, BankSettings


def main() -> None:
    """Listen, say where, serve."""
    arguments = _parser().parse_args()
    settings = BankSettings(**{name: getattr(arguments, name) for name in BankSettings.model_fields})
    bank = Bank(settings)
    serve(bank.app, arguments, http=BankProtocol)


def _parser() -> argparse.ArgumentParser:
    def default(name: str) -> object:
        return BankSettings.model_fields[name].default

    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.bank", description=__doc__)
    add_serving_arguments(parser)
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
    return parser


if __name__ == "__main__":
    main()
