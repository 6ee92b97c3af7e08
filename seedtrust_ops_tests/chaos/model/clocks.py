"""The three clocks of a simulation, each of which can be moved: the database's, the processes', and the bank's.

The database clock is a pair of functions that precede PostgreSQL's own on the search path, so that every `now()` and
`clock_timestamp()` of the product calls them. The process clock replaces `time` in the modules that read the time. The
bank's clock is set through its control client. Sleeps and timeouts of the event loop stay real.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from seedtrust_ops.domain.transfers import sender, sending_context
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops_tests.chaos.witness import install_witness

FUNCTIONS = """
    create schema model_clock;
    create table model_clock.ahead (seconds double precision not null);
    insert into model_clock.ahead values (0);
    create function model_clock.clock_timestamp() returns timestamptz language sql volatile as
        'select pg_catalog.clock_timestamp() + make_interval(secs => seconds) from model_clock.ahead';
    create function model_clock.now() returns timestamptz language sql stable as
        'select pg_catalog.now() + make_interval(secs => seconds) from model_clock.ahead';
"""
SEARCH_PATH = "-csearch_path=model_clock,pg_catalog,public"
PATCHED_MODULES = (sender, sending_context)


def with_model_clock(database: URL) -> URL:
    """Return the database's URL with a search path that uses the model's clock."""
    return database.update_query_dict({"options": SEARCH_PATH})


def install_clock(database: URL) -> None:
    """Create the clock functions in a database that does not have them yet, and the witness that reads them."""
    engine = create_engine(database)
    install_witness(engine)
    with engine.begin() as connection:
        connection.execute(text(FUNCTIONS))
    engine.dispose()


class ProcessClock:
    """Replaces the module `time` in the product's modules that read the time."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes backward."""
        return time.monotonic() + self.ahead_seconds

    def time(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.ahead_seconds

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the product's modules read this clock."""
        patches = [patch.object(module, "time", self) for module in PATCHED_MODULES]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()


class Clocks:
    """All three clocks, and how far each is ahead of this machine's, in seconds."""

    def __init__(self, engine: Engine, process: ProcessClock, bank: SandboxBank) -> None:
        self._engine = engine
        self._process = process
        self._bank = bank
        self._database_ahead = 0.0
        self._bank_ahead = 0.0
        self._set_back_by = 0.0

    def pass_time(self, seconds: float) -> None:
        """Let time pass on all three clocks."""
        self.jump_database(seconds)
        self._process.ahead_seconds += seconds
        self.jump_bank(seconds)

    def jump_database(self, seconds: float) -> None:
        """Move the database's clock forward, or backward if `seconds` is negative."""
        self._database_ahead += seconds
        self._set_back_by = max(0.0, self._set_back_by - seconds)
        with self._engine.begin() as connection:
            connection.execute(text("update model_clock.ahead set seconds = :ahead"), {"ahead": self._database_ahead})

    def catch_up(self) -> None:
        """Let enough time pass that every recorded time is in the past, even if the database clock was set back."""
        self.pass_time(self._set_back_by)

    def jump_bank(self, seconds: float) -> None:
        """Move the bank's clock forward."""
        self._bank_ahead += seconds
        self._bank.set_clock(self._bank_ahead)
