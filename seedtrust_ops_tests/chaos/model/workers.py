"""The workers and healers of the model: as many processes as are wanted at once, each with an engine of its own.

They run the product's own functions in this process; what befalls them in the middle is their life's.
"""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.transfers.account_numbers import FieldCipher
from seedtrust_ops.domain.transfers.auto_heal import heal
from seedtrust_ops.domain.transfers.batch_processor import TransferRules, process_batch
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.resources.huntington_client import open_huntington_bank
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks
from seedtrust_ops_tests.chaos.model.processes import Died, Incarnations, Life, OpenBank
from seedtrust_ops_tests.support.waiters import wait_until

ANSWER_SECONDS = 0.3
"""Short, for the model has the bank be late on purpose and often; an answer that is late by chance is one more."""
LEASE_SECONDS = 60.0
GRACE_SECONDS = 600.0
CONCURRENCY = 3
LONGEST_SECONDS = 300


@dataclass
class Hand:
    """A place for one process at a time; `run` is the Dagster run that its last process was."""

    engine: Engine
    incarnations: Incarnations = field(init=False)
    run: str = ""
    is_busy: bool = False
    frozen: threading.Thread | None = None

    def __post_init__(self) -> None:
        """Count the engine's steps."""
        self.incarnations = Incarnations(self.engine)

    @property
    def sessions(self) -> sessionmaker[Session]:
        """Sessions of this process."""
        return sessionmaker(self.engine, expire_on_commit=False)


class Hands:
    """Everybody who works on one database and one bank; `wrong` lists failures that no person should ever be shown."""

    def __init__(self, url: URL, banks: FreshBanks, cipher: FieldCipher, *, answer_seconds: float) -> None:
        self._url = url
        self._cipher = cipher
        settings = HuntingtonSettings(
            HUNTINGTON_API_URL=banks.url,
            HUNTINGTON_API_KEY=SecretStr(banks.api_key),
            HUNTINGTON_FUNDING_ACCOUNT_ID=banks.funding_account_id,
            HUNTINGTON_TIMEOUT_SECONDS=answer_seconds,
            HUNTINGTON_CONCURRENCY=CONCURRENCY,
        )
        self._open_bank: OpenBank = lambda: open_huntington_bank(settings)
        self._rules = TransferRules(banks.funding_account_id, CONCURRENCY, LEASE_SECONDS, GRACE_SECONDS, False)
        self._hands: list[Hand] = []
        self._run_numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.wrong: list[str] = []

    def process(self, batch_id: int, life: Life, *, asked_seconds_ago: float, same_run: bool, now: datetime) -> str:
        """Let a free hand process a batch; return "done", "frozen", "died" or the name of what was raised."""
        hand = self._take_free_hand()
        if not (same_run and hand.run):
            hand.run = f"run-{next(self._run_numbers)}"
        return self._live(
            hand,
            life,
            lambda: process_batch(
                hand.sessions,
                hand.incarnations.opens(self._open_bank),
                self._cipher,
                self._rules,
                batch_id=batch_id,
                holder=hand.run,
                asked_at=now - timedelta(seconds=asked_seconds_ago),
            ),
        )

    def process_by_two(self, batch_id: int, now: datetime) -> None:
        """Let two workers go at the same batch at the same moment."""
        with ThreadPoolExecutor(2) as pool:
            works = [
                pool.submit(self.process, batch_id, Life(), asked_seconds_ago=0, same_run=False, now=now)
                for _ in range(2)
            ]
            for work in works:
                work.result()

    def heal(self, life: Life) -> str:
        """Let a free hand heal; return as `process` does."""
        hand = self._take_free_hand()
        return self._live(
            hand,
            life,
            lambda: heal(hand.sessions, hand.incarnations.opens(self._open_bank), unknown_grace_seconds=GRACE_SECONDS),
        )

    def thaw(self) -> int:
        """Let every frozen worker go on to its end; return how many there were."""
        frozen = [hand for hand in self._hands if hand.frozen is not None]
        for hand in frozen:
            assert hand.frozen is not None
            hand.incarnations.life.thaw()
            hand.frozen.join(LONGEST_SECONDS)
            assert not hand.frozen.is_alive(), "a thawed worker came to no end"
            hand.frozen = None
            hand.is_busy = False
        return len(frozen)

    @property
    def any_frozen(self) -> bool:
        """Whether a worker stands still in the middle."""
        return any(hand.frozen is not None for hand in self._hands)

    @property
    def are_at_work(self) -> bool:
        """Whether a worker is under way, as it is where something happens in its middle."""
        return any(hand.is_busy and hand.frozen is None for hand in self._hands)

    def dismiss(self) -> None:
        """End everything, and close all connections."""
        self.thaw()
        for hand in self._hands:
            hand.engine.dispose()

    def _take_free_hand(self) -> Hand:
        with self._lock:
            hand = next((one for one in self._hands if not one.is_busy), None)
            if hand is None:
                hand = Hand(create_application_engine(self._url))
                self._hands.append(hand)
            hand.is_busy = True
        return hand

    def _live(self, hand: Hand, life: Life, work: Callable[[], object]) -> str:
        hand.incarnations.begin(life)
        if not life.can_freeze:
            try:
                return self._ending(work)
            finally:
                hand.is_busy = False
        endings: list[str] = []
        thread = threading.Thread(target=lambda: endings.append(self._ending(work)))
        thread.start()
        wait_until(lambda: life.has_frozen.is_set() or not thread.is_alive(), seconds=LONGEST_SECONDS, every=0.002)
        if not life.has_frozen.is_set():
            hand.is_busy = False
            return endings[0]
        # Its other threads come to their next commit first, or they would hold locks for as long as it is frozen.
        wait_until(lambda: not hand.incarnations.holds_locks, every=0.002, what="a frozen worker's transactions")
        hand.frozen = thread
        return "frozen"

    def _ending(self, work: Callable[[], object]) -> str:
        try:
            work()
        except Died:
            return "died"
        except SeedTrustError as error:
            return type(error).__name__
        except Exception as error:  # noqa: BLE001  whatever it is, the history's reader must see it
            self.wrong.append(f"{type(error).__name__}: {error}")
            return "wrong"
        return "done"
