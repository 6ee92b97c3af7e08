"""Everything that a job could touch, read before and after: the database's tables and the outside world's servers."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess


def contents(sessions: sessionmaker[Session]) -> dict[str, list[str]]:
    """Every row of every table of `public` and `ops` as text, by table."""
    with sessions() as session:
        tables = session.execute(
            text("select schemaname, tablename from pg_tables where schemaname in ('public', 'ops') order by 1, 2")
        )
        return {
            f"{schema}.{table}": sorted(session.scalars(text(f"select t::text from {schema}.{table} t")))
            for schema, table in tables.all()
        }


def changed(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    """The tables whose rows are not the same."""
    assert before.keys() == after.keys()
    return {table for table in before if before[table] != after[table]}


@dataclass(frozen=True)
class Outside:
    """The servers of the outside world, and what was written to them so far."""

    bank: BankProcess
    mailbox: MailboxProcess
    world: OutsideWorld

    def writing(self, since_bank_request: int = 0) -> dict[str, Iterable[object]]:
        """What asked any of them to change something; each list is empty where nothing did."""
        return {
            "bank": [one for one in self.bank.control.requests()[since_bank_request:] if one["method"] != "GET"],
            "mailbox": self.mailbox.control.letters(),
            "internal API": self.world.internal_api.kept(),
            "PostHog": self.world.posthog.kept(),
            "storage": list(self.world.storage.keys()),
        }
