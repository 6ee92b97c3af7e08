"""The model's world: one company's database, one bank, three clocks, and the times in which nothing may be sent.

What happens in it is decided by `machine`, who works in it is in `hands`; what must hold, the checker says.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.sandbox.bank.control_client import SandboxBank, SeenRequest
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.invariants import Ban, check, last_request
from seedtrust_ops_tests.chaos.model.clocks import Clocks, ProcessClock, with_model_clock
from seedtrust_ops_tests.chaos.model.processes import Life
from seedtrust_ops_tests.chaos.model.workers import ANSWER_SECONDS, Hands
from seedtrust_ops_tests.chaos.violations import Violation
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

HOUR = 3600.0
ROUNDS_TO_QUIET = 12


class World:
    """Made anew for every history by `world_on`."""

    def __init__(self, bank: SandboxBank, hands: Hands, clocks: Clocks, company: Company) -> None:
        self.bank = bank
        self.hands = hands
        self.clocks = clocks
        self.company = company
        self._bans: dict[str, Ban] = {}
        self._lifted: list[Ban] = []
        self._to_come: dict[str, Callable[[], None]] = {}

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement as the platform's applications would, and return its rows."""
        with self.company.sessions.begin() as session:
            result: Any = session.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def one(self, statement: str, **values: Any) -> Any:
        """Return the one value that a statement asks for."""
        return self.sql(statement, **values)[0][0]

    def now(self) -> datetime:
        """Return the database's time (UTC)."""
        moment: datetime = self.one("select clock_timestamp()")
        return moment

    def process(self, batch_id: int, life: Life | None = None, *, same_run: bool = False, late: float = 0) -> str:
        """Let a worker process a batch in one life; return in a word how that ended.

        `late` is how many seconds ago its run was asked for; `same_run` has the run of an earlier life try again.
        """
        return self.hands.process(batch_id, life or Life(), asked_seconds_ago=late, same_run=same_run, now=self.now())

    def heal(self, life: Life | None = None) -> str:
        """Let a healer heal; return in a word how that ended."""
        return self.hands.heal(life or Life())

    def forbid(self, key: str, why: str, which: str | None = None) -> None:
        """From now on nothing may be sent, or nothing of what the query `which` names, until `allow(key)`.

        A worker in whose middle this is said may send what it had put on record; the ban begins when it is done.
        """

        def begin() -> None:
            ids = None if which is None else frozenset(row[0] for row in self.sql(which))
            on_record = "select id from huntington_transactions where status = 'processing'"
            spared = frozenset(row[0] for row in self.sql(on_record)) if self.hands.any_frozen else frozenset()
            self._bans[key] = Ban(why, last_request(self.bank), None, ids, spared)

        self._to_come[key] = begin
        self._begin_bans()

    def allow(self, key: str) -> None:
        """End a ban."""
        self._to_come.pop(key, None)
        ban = self._bans.pop(key, None)
        if ban is not None:
            self._lifted.append(replace(ban, until_request=last_request(self.bank)))

    def _begin_bans(self) -> None:
        if not self.hands.are_at_work:
            for begin in self._to_come.values():
                begin()
            self._to_come.clear()

    def violations(self, *, quiet: bool = False) -> list[Violation]:
        """Return what the checker finds."""
        self._begin_bans()
        bans = [*self._lifted, *self._bans.values()]
        return check(self.company.sessions, self.bank, quiet=quiet, bans=bans)

    def _late_requests(self) -> list[SeenRequest]:
        late = ("answer_late_before_commit", "answer_late_after_commit")
        return [one for one in self.bank.requests() if one["fault"] in late and one["status"] is None]

    def come_to_rest(self) -> None:
        """Let everything go well from now on, and time pass, until nothing is queued or open any more."""
        self.hands.thaw()
        self.bank.clear_faults()
        wait_until(lambda: not self._late_requests(), what="the bank to be done with what it was late with")
        self.sql("delete from ops.switches")
        self.allow("halt")
        self.clocks.catch_up()
        for _ in range(ROUNDS_TO_QUIET):
            self.clocks.pass_time(HOUR)
            is_healed = self.heal() == "done"
            queued = self.sql("select id from huntington_batches where status = 'queued' order by priority desc, id")
            for (batch_id,) in queued:
                self.process(batch_id)
            # A machine that stood still for a moment is a bank that did not answer: it is asked again.
            if (
                is_healed
                and not queued
                and not self.one(
                    "select count(*) from huntington_batches b where status = 'processing' and not exists ("
                    "select 1 from huntington_transactions t join ops.alerts a on a.subject = 'transaction ' || t.id"
                    " where t.batch_id = b.id and t.status = 'processing' and a.resolved_at is null)"
                )
            ):
                break
        wait_until(lambda: self.heal() == "done" or self.hands.wrong, every=0.5, what="a last healing with all answers")


@contextmanager
def world_on(
    ground: Ground, template: str, banks: FreshBanks, *, answer_seconds: float = ANSWER_SECONDS
) -> Iterator[World]:
    """Make a world of a fresh database, copied from `template`, and a fresh bank.

    `answer_seconds` is how long everybody in it waits for one answer of the bank.
    """
    process_clock = ProcessClock()
    banks.renew(ach_settlement_seconds=2 * 86_400)
    with ground.database(template=template) as plain_url, process_clock.in_place():
        url = with_model_clock(plain_url)
        engine = create_application_engine(url)
        hands = Hands(url, banks, ground.cipher, answer_seconds=answer_seconds)
        company = Company(sessionmaker(engine, expire_on_commit=False), ground.cipher)
        try:
            yield World(banks.control, hands, Clocks(engine, process_clock, banks.control), company)
        finally:
            hands.dismiss()
            engine.dispose()
