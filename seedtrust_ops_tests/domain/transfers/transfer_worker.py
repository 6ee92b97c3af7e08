"""Processes and heals in the test's own process, against the real bank and database, and reads the bank's books."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.domain.transfers.auto_heal import HealReport, heal
from seedtrust_ops.domain.transfers.batch_processor import BatchReport, TransferRules, process_batch
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.sandbox.bank.control_client import Transfer
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.factories import BuiltCase, Company

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


def settings_for(bank: BankProcess, **changes: Any) -> HuntingtonSettings:
    """The bank's settings, with so much patience that no answer is late by chance, however busy the machine."""
    values = {
        "HUNTINGTON_API_URL": bank.url,
        "HUNTINGTON_API_KEY": SecretStr(bank.api_key),
        "HUNTINGTON_FUNDING_ACCOUNT_ID": bank.funding_account_id,
        "HUNTINGTON_TIMEOUT_SECONDS": 30,
    }
    return HuntingtonSettings(**(values | changes))


@dataclass
class Worker:
    """A worker on one company's batches at one bank."""

    company: Company
    bank: BankProcess
    settings: HuntingtonSettings
    rules: TransferRules
    name: str = "run-1"

    def process(self, batch_id: int, *, asked_at: datetime | None = None, **rules: Any) -> BatchReport:
        return process_batch(
            self.company.sessions,
            self.open_bank,
            self.company.cipher,
            replace(self.rules, **rules),
            batch_id=batch_id,
            holder=self.name,
            asked_at=asked_at or datetime.now(UTC),
        )

    def heal(self, *, grace_seconds: float = 0) -> HealReport:
        return heal(self.company.sessions, self.open_bank, unknown_grace_seconds=grace_seconds)

    def submitted(self, case: BuiltCase, cents: int = 5_000) -> tuple[int, int]:
        """Process a batch of one ACH, which the bank accepts and has not settled; return batch and transaction."""
        batch_id = self.company.batch(case=case)
        transaction_id = self.company.transaction(batch_id, self.company.request(case, cents), cents, method="ach")
        self.process(batch_id)
        return batch_id, transaction_id

    @property
    def open_bank(self) -> Callable[[], AbstractAsyncContextManager[HuntingtonBank]]:
        return lambda: open_huntington_bank(self.settings)

    def bank_transfers(self, transaction_ids: Sequence[int]) -> dict[int, Transfer]:
        """What the bank has under the keys of these transactions."""
        keys = {idempotency_key(one): one for one in transaction_ids}
        return {
            keys[transfer["idempotency_key"]]: transfer
            for transfer in self.bank.control.ledger()["transfers"]
            if transfer["idempotency_key"] in keys
        }

    def paid_more_than_once(self, transaction_ids: Sequence[int]) -> list[str]:
        """Those of these transactions' keys that moved money twice; the bank serves other tests too."""
        keys = {idempotency_key(one) for one in transaction_ids}
        return [key for key in self.bank.control.totals()["keys_paid_more_than_once"] if key in keys]

    def posts(self, transaction_id: int) -> int:
        """How many requests to send this transaction the bank has seen."""
        key = idempotency_key(transaction_id)
        return sum(seen["method"] == "POST" and seen["idempotency_key"] == key for seen in self.bank.control.requests())


def rules_for(bank: BankProcess) -> TransferRules:
    return TransferRules(
        funding_account_id=bank.funding_account_id,
        concurrency=8,
        lease_seconds=60,
        unknown_grace_seconds=600,
        halted_by_environment=False,
    )
