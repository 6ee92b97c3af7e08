"""Measures a batch from claim to completion with a slow bank: `python -m ... [--transfers N] [--latency-ms L]`.

It checks no limit: it prints the seconds beside the bank limit (transfers x latency / concurrency).
"""

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, options_for, settings_for
from seedtrust_ops_tests.support.factories import Company

CONCURRENCY = 16
ROUNDS = 3


def main() -> None:
    """Set up a database and a bank, and process three batches."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transfers", type=int, default=1_000)
    parser.add_argument("--latency-ms", type=float, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = embedded_postgres.start(folder / "postgres")
        try:
            engine = create_application_engine(embedded_postgres.ensure_database(server, "bench"))
            migrate(engine, create_platform=True)
            cipher = FernetFieldCipher([SecretStr(Fernet.generate_key().decode())])
            company = Company(sessionmaker(engine, expire_on_commit=False), cipher)
            with start_bank(
                folder / "bank.sqlite", api_key="bench", latency_ms=arguments.latency_ms, available_cents=10**15
            ) as bank:
                for _ in range(ROUNDS):
                    _measure(company, bank, arguments.transfers, arguments.latency_ms)
            engine.dispose()
        finally:
            embedded_postgres.stop(folder / "postgres")


def _measure(company: Company, bank: BankProcess, transfers: int, latency_ms: float) -> None:
    settings = settings_for(bank, HUNTINGTON_CONCURRENCY=CONCURRENCY, HUNTINGTON_TIMEOUT_SECONDS=30)
    options = replace(options_for(bank), concurrency=CONCURRENCY, lease_seconds=60)
    batch_id = company.big_batch(transfers)
    began = time.monotonic()
    report = Worker(company, bank, settings, options).process(batch_id)
    seconds = time.monotonic() - began
    limit = transfers * latency_ms / 1000 / CONCURRENCY
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(  # noqa: T201
        f"{report.counts}: {seconds:.2f} s, {seconds / limit:.2f} x bank limit ({limit:.2f} s), {memory:.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
