"""The model's workers: as many simulated processes as needed at once, each with a database engine of its own.

They run the product's own functions in this Python process; faults in the middle of a run are injected by `processes`.
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
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.transfers.auto_heal import heal
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.domain.transfers.sending_context import BatchRun, FieldCipher, TransferOptions
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.bank import OpenBank
from seedtrust_ops.resources.huntington_client import open_huntington_bank
from seedtrust_ops_tests.chaos.bank_pool import BankPool
from seedtrust_ops_tests.chaos.model.processes import ProcessCrashed, ProcessHooks, SimulatedProcess
from seedtrust_ops_tests.chaos.recovery import require_all_recorded
from seedtrust_ops_tests.chaos.worker_config import ALERT_EMAILS
from seedtrust_ops_tests.support.waiters import wait_until

RESPONSE_TIMEOUT_SECONDS = 0.3
"""Short, because the model often makes the bank late on purpose; a response late by accident is just one more."""
LEASE_SECONDS = 60.0
GRACE_SECONDS = 600.0
CONCURRENCY = 3
MAX_RUN_SECONDS = 300


@dataclass
class Worker:
    """Runs one simulated process at a time; `run_id` stands for the Dagster run of its latest process."""

    engine: Engine
    hooks: ProcessHooks = field(init=False)
    run_id: str = ""
    is_busy: bool = False
    frozen_thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        """Count the engine's steps."""
        self.hooks = ProcessHooks(self.engine)

    @property
    def sessions(self) -> sessionmaker[Session]:
        """Sessions on this worker's engine."""
        return sessionmaker(self.engine, expire_on_commit=False)


class WorkerPool:
    """All workers on one database and one bank.

    `unexpected_errors` lists the errors that no person should ever be shown, and `canceled_runs` the runs that a person
    has canceled.
    """

    def __init__(self, url: URL, banks: BankPool, cipher: FieldCipher, *, response_timeout_seconds: float) -> None:
        self._url = url
        self._cipher = cipher
        settings = HuntingtonSettings(
            HUNTINGTON_API_URL=banks.url,
            HUNTINGTON_API_KEY=SecretStr(banks.api_key),
            HUNTINGTON_FUNDING_ACCOUNT_ID=banks.funding_account_id,
            HUNTINGTON_TIMEOUT_SECONDS=response_timeout_seconds,
            HUNTINGTON_CONCURRENCY=CONCURRENCY,
        )
        self.open_bank: OpenBank = lambda: open_huntington_bank(settings)
        self._options = TransferOptions(banks.funding_account_id, CONCURRENCY, LEASE_SECONDS, GRACE_SECONDS, False)
        self._workers: list[Worker] = []
        self._run_numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.unexpected_errors: list[str] = []
        self.canceled_runs: set[str] = set()

    def process(
        self,
        batch_id: int,
        process: SimulatedProcess,
        *,
        requested_seconds_ago: float,
        same_run: bool,
        now: datetime,
    ) -> str:
        """Let a free worker process a batch.

        Returns "done", "frozen", "crashed", "disconnected", "unexpected error", or the name of the SeedTrustError that
        was raised.
        """
        worker = self._take_free_worker()
        if not (same_run and worker.run_id) or worker.run_id in self.canceled_runs:
            worker.run_id = f"run-{next(self._run_numbers)}"
        return self._run(
            worker,
            process,
            lambda: process_batch(
                worker.sessions,
                worker.hooks.wrap(self.open_bank),
                BatchRun(
                    batch_id,
                    worker.run_id,
                    now - timedelta(seconds=requested_seconds_ago),
                    self._cipher,
                    self._options,
                    was_canceled_by_person=self.canceled_runs.__contains__,
                    alert_emails=ALERT_EMAILS,
                ),
            ),
        )

    def process_concurrently(self, batch_id: int, now: datetime) -> None:
        """Let two workers start on the same batch at the same time."""
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(
                    self.process, batch_id, SimulatedProcess(), requested_seconds_ago=0, same_run=False, now=now
                )
                for _ in range(2)
            ]
            for run in runs:
                run.result()

    def heal(self, process: SimulatedProcess) -> str:
        """Let a free worker run auto-heal; return the same as `process`."""
        worker = self._take_free_worker()
        return self._run(
            worker,
            process,
            lambda: require_all_recorded(
                heal(
                    worker.sessions,
                    worker.hooks.wrap(self.open_bank),
                    unknown_grace_seconds=GRACE_SECONDS,
                    was_canceled_by_person=self.canceled_runs.__contains__,
                    alert_emails=ALERT_EMAILS,
                )
            ),
        )

    def resume_frozen(self) -> int:
        """Let every frozen worker continue to its end; return how many there were."""
        frozen = [worker for worker in self._workers if worker.frozen_thread is not None]
        for worker in frozen:
            assert worker.frozen_thread is not None
            worker.hooks.process.resume()
            worker.frozen_thread.join(MAX_RUN_SECONDS)
            assert not worker.frozen_thread.is_alive(), "A resumed worker did not end."
            worker.frozen_thread = None
            worker.is_busy = False
        return len(frozen)

    @property
    def frozen_runs(self) -> set[str]:
        """The runs whose workers are frozen."""
        return {worker.run_id for worker in self._workers if worker.frozen_thread is not None}

    @property
    def has_frozen(self) -> bool:
        """Whether any worker is frozen."""
        return any(worker.frozen_thread is not None for worker in self._workers)

    @property
    def is_running(self) -> bool:
        """Whether any worker is running and not frozen, as it is when an event happens in the middle of its run."""
        return any(worker.is_busy and worker.frozen_thread is None for worker in self._workers)

    def close(self) -> None:
        """Let every worker end, and close all connections."""
        self.resume_frozen()
        for worker in self._workers:
            worker.engine.dispose()

    def _take_free_worker(self) -> Worker:
        with self._lock:
            worker = next((one for one in self._workers if not one.is_busy), None)
            if worker is None:
                worker = Worker(create_application_engine(self._url))
                self._workers.append(worker)
            worker.is_busy = True
        return worker

    def _run(self, worker: Worker, process: SimulatedProcess, work: Callable[[], object]) -> str:
        worker.hooks.start(process)
        if not process.can_freeze:
            try:
                return self._outcome(work)
            finally:
                worker.is_busy = False
        outcomes: list[str] = []
        thread = threading.Thread(target=lambda: outcomes.append(self._outcome(work)))
        thread.start()
        wait_until(lambda: process.has_frozen.is_set() or not thread.is_alive(), seconds=MAX_RUN_SECONDS, every=0.002)
        if not process.has_frozen.is_set():
            worker.is_busy = False
            return outcomes[0]
        # Its other threads first reach their next commit; otherwise they would hold locks for the whole freeze.
        wait_until(lambda: not worker.hooks.holds_locks, every=0.002, what="a frozen worker's transactions to end")
        worker.frozen_thread = thread
        return "frozen"

    def _outcome(self, work: Callable[[], object]) -> str:
        try:
            work()
        except ProcessCrashed:
            return "crashed"
        except SeedTrustError as error:
            return type(error).__name__
        except Exception as error:  # noqa: BLE001  any other error must be reported as a violation
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                # On a machine that stands still for ten seconds, the server closes connections in a transaction.
                return "disconnected"
            self.unexpected_errors.append(f"{type(error).__name__}: {error}")
            return "unexpected error"
        return "done"
