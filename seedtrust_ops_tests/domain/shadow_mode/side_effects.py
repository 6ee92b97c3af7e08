"""Reads everything that a job could change, before and after: the database tables and the external servers."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices


def read_all_tables(sessions: sessionmaker[Session]) -> dict[str, list[str]]:
    """Return every row of schemas `public` and `ops` as text, by table."""
    with sessions() as session:
        tables = session.execute(
            text("select schemaname, tablename from pg_tables where schemaname in ('public', 'ops') order by 1, 2")
        )
        return {
            f"{schema}.{table}": sorted(session.scalars(text(f"select t::text from {schema}.{table} t")))
            for schema, table in tables.all()
        }


def changed_tables(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    """Return the tables whose rows differ."""
    assert before.keys() == after.keys()
    return {table for table in before if before[table] != after[table]}


@dataclass(frozen=True)
class RecordedSideEffects:
    """The external servers, and the write requests that they have received."""

    bank: BankProcess
    mailbox: MailboxProcess
    services: ExternalServices

    def write_requests(self, since_bank_request: int = 0) -> dict[str, Iterable[object]]:
        """Return the requests that change something, by server."""
        return {
            "bank": [
                request for request in self.bank.control.requests()[since_bank_request:] if request["method"] != "GET"
            ],
            "mailbox": self.mailbox.control.emails(),
            "internal API": self.services.internal_api.requests(),
            "PostHog": self.services.posthog.requests(),
            "storage": list(self.services.storage.keys()),
        }
