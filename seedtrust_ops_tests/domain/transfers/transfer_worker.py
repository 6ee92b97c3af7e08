"""A transfer worker in the test's own process, against the sandbox bank and a real database."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.health.ledger import ledger_mismatch
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.auto_heal import HealReport, heal
from seedtrust_ops.domain.transfers.batch_processor import BatchReport, process_batch
from seedtrust_ops.domain.transfers.leases import WasCanceledByPerson
from seedtrust_ops.domain.transfers.sending_context import BatchRun, TransferOptions
from seedtrust_ops.domain.transfers.settlement import (
    SettleAs,
    Settlement,
    SettlementReport,
    ask_bank,
    known_bank_id,
    settle,
)
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.sandbox.bank.control_client import Transfer
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.factories import BuiltCase, Company

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


def settings_for(bank: BankProcess, **changes: Any) -> HuntingtonSettings:
    """The bank's settings, with a timeout so long that no response is late by accident on a busy machine."""
    values = {
        "HUNTINGTON_API_URL": bank.url,
        "HUNTINGTON_API_KEY": SecretStr(bank.api_key),
        "HUNTINGTON_FUNDING_ACCOUNT_ID": bank.funding_account_id,
        "HUNTINGTON_TIMEOUT_SECONDS": 30,
    }
    return HuntingtonSettings(**(values | changes))


@dataclass
class Worker:
    """Processes one company's batches at one bank, and runs auto-heal."""

    company: Company
    bank: BankProcess
    settings: HuntingtonSettings
    options: TransferOptions
    name: str = "run-1"
    canceled_runs: set[str] = field(default_factory=set)
    """The runs that a person has canceled."""
    alert_emails: Sequence[str] = ("oncall@example.test",)
    was_canceled_by_person: WasCanceledByPerson | None = None
    """Answers instead of `canceled_runs`."""

    def process(self, batch_id: int, *, requested_at: datetime | None = None, **options: Any) -> BatchReport:
        run = BatchRun(
            batch_id,
            self.name,
            requested_at or datetime.now(UTC),
            self.company.cipher,
            replace(self.options, **options),
            was_canceled_by_person=self.was_canceled_by_person or self.canceled_runs.__contains__,
            alert_emails=self.alert_emails,
        )
        return process_batch(self.company.sessions, self.open_bank, run)

    def heal(self, *, grace_seconds: float = 0) -> HealReport:
        return heal(
            self.company.sessions,
            self.open_bank,
            unknown_grace_seconds=grace_seconds,
            was_canceled_by_person=self.was_canceled_by_person or self.canceled_runs.__contains__,
            alert_emails=self.alert_emails,
        )

    def submit_ach(self, case: BuiltCase, cents: int = 5_000) -> tuple[int, int]:
        """Process a batch with one ACH that the bank accepts but does not settle; return batch and transaction ids."""
        batch_id = self.company.batch(case=case)
        transaction_id = self.company.transaction(batch_id, self.company.request(case, cents), cents, method="ach")
        self.process(batch_id)
        return batch_id, transaction_id

    @property
    def open_bank(self) -> Callable[[], AbstractAsyncContextManager[HuntingtonBank]]:
        return lambda: open_huntington_bank(self.settings)

    def bank_transfers(self, transaction_ids: Sequence[int]) -> dict[int, Transfer]:
        """The bank's transfers under the keys of these transactions, by transaction id."""
        keys = {idempotency_key(transaction_id): transaction_id for transaction_id in transaction_ids}
        return {
            keys[transfer["idempotency_key"]]: transfer
            for transfer in self.bank.control.ledger()["transfers"]
            if transfer["idempotency_key"] in keys
        }

    def paid_more_than_once(self, transaction_ids: Sequence[int]) -> list[str]:
        """The keys of these transactions that moved money more than once (the bank also serves other tests)."""
        keys = {idempotency_key(transaction_id) for transaction_id in transaction_ids}
        return [key for key in self.bank.control.totals()["keys_paid_more_than_once"] if key in keys]

    def posts(self, transaction_id: int) -> int:
        """The number of transfer requests that the bank received for this transaction."""
        key = idempotency_key(transaction_id)
        return sum(seen["method"] == "POST" and seen["idempotency_key"] == key for seen in self.bank.control.requests())


def settle_by_hand(
    worker: Worker, transaction_id: int, settle_as: SettleAs, *, contradict_bank: bool = False, grace: float = 0
) -> SettlementReport:
    """Settle a transaction as an operator does after calling the bank, and check that the books still agree."""
    sessions = worker.company.sessions
    with sessions() as session:
        known = known_bank_id(session, transaction_id)
    answer = ask_bank(worker.open_bank, transaction_id, known)
    decision = Settlement(
        transaction_id, settle_as, "as Huntington says", "ana", contradict_bank, unknown_grace_seconds=grace
    )
    with sessions.begin() as session:
        attest(session, Operator("ana"), "as Huntington says")
        report = settle(session, decision, answer)
    with sessions() as session:
        assert ledger_mismatch(session) == []
    return report


def options_for(bank: BankProcess) -> TransferOptions:
    return TransferOptions(
        funding_account_id=bank.funding_account_id,
        concurrency=8,
        lease_seconds=60,
        unknown_grace_seconds=600,
        halted_by_environment=False,
    )
