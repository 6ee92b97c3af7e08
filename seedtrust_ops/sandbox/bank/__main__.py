"""`python -m seedtrust_ops.sandbox.bank`: runs one sandbox bank until it is stopped.

It prints one JSON line {"url", "pid"} once it is listening. It is configured by its arguments alone.
"""

import argparse
from pathlib import Path

from seedtrust_ops.sandbox.asgi_server import add_server_arguments, serve
from seedtrust_ops.sandbox.bank.faulty_responses import BankProtocol
from seedtrust_ops.sandbox.bank.server import Bank, BankSettings


def main() -> None:
    """Run one bank."""
    arguments = _parser().parse_args()
    settings = BankSettings(**{name: getattr(arguments, name) for name in BankSettings.model_fields})
    bank = Bank(settings)
    serve(bank.app, arguments, http=BankProtocol)


def _parser() -> argparse.ArgumentParser:
    def default(name: str) -> object:
        return BankSettings.model_fields[name].default

    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.sandbox.bank", description=__doc__)
    add_server_arguments(parser)
    parser.add_argument("--database", type=Path, required=True, help="the bank's SQLite file; created if missing")
    parser.add_argument("--api-key", required=True, help="the bearer token that clients must send")
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
        help="how long an accepted ACH takes to complete",
    )
    parser.add_argument("--latency-ms", type=float, default=default("latency_ms"), help="added to every /v1 request")
    parser.add_argument("--page-size", type=int, default=default("page_size"), help="transfers per page")
    return parser


if __name__ == "__main__":
    main()
