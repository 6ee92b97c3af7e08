"""A worker's configuration: the addresses, keys and timeouts that production reads from environment variables.

It can be sent to another process and builds what the domain functions take; it does no work itself.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pydantic import SecretStr
from sqlalchemy.engine import URL

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.config.external_services import MailSettings
from seedtrust_ops.domain.transfers.sending_context import BatchRun, TransferOptions
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank

RESPONSE_TIMEOUT_SECONDS = 1.5
"""How long a worker waits for the bank's response: enough on a busy machine, yet short, because some never come."""
ALERT_EMAILS = ("oncall@example.test",)
"""Who is emailed about a transfer if nobody who is responsible for it is active."""


@dataclass(frozen=True)
class WorkerConfig:
    """Everything a task needs; `mail` and `storage` are the environment variables for those servers."""

    database: URL
    bank_url: str
    bank_key: str
    funding_account_id: str
    field_key: str
    concurrency: int = 1
    lease_seconds: float = 30
    mail: dict[str, str] = field(default_factory=dict)
    storage: dict[str, str] = field(default_factory=dict)

    def with_concurrency(self, concurrency: int) -> "WorkerConfig":
        """The same configuration with so many concurrent requests."""
        return replace(self, concurrency=concurrency)

    @property
    def cipher(self) -> FernetFieldCipher:
        """Decrypts account numbers."""
        return FernetFieldCipher([SecretStr(self.field_key)])

    def batch_run(self, batch_id: int, holder: str) -> BatchRun:
        """The run of a batch requested now, with no grace time for a key that the bank does not know."""
        options = TransferOptions(
            funding_account_id=self.funding_account_id,
            concurrency=self.concurrency,
            lease_seconds=self.lease_seconds,
            unknown_grace_seconds=0,
            halted_by_environment=False,
        )
        return BatchRun(
            batch_id,
            holder,
            datetime.now(UTC),
            self.cipher,
            options,
            was_canceled_by_person=lambda _run_id: False,
            alert_emails=ALERT_EMAILS,
        )

    @property
    def open_bank(self) -> Callable[[], AbstractAsyncContextManager[HuntingtonBank]]:
        """Opens the real bank client."""
        settings = HuntingtonSettings(
            **{
                "HUNTINGTON_API_URL": self.bank_url,
                "HUNTINGTON_API_KEY": SecretStr(self.bank_key),
                "HUNTINGTON_FUNDING_ACCOUNT_ID": self.funding_account_id,
                "HUNTINGTON_TIMEOUT_SECONDS": RESPONSE_TIMEOUT_SECONDS,
                "HUNTINGTON_CONCURRENCY": self.concurrency,
            }
        )
        return lambda: open_huntington_bank(settings)

    @property
    def mail_settings(self) -> MailSettings:
        """The mail server's settings."""
        return MailSettings(**self.mail)
