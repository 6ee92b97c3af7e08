"""The events that can happen in a simulation at any time, also in the middle of a worker's run.

They come from people (`people`), the bank (`bank_events`), clocks and other workers; `state_machine` decides when they
happen. Each event returns whether it had any effect.
"""

from collections.abc import Callable

from seedtrust_ops_tests.chaos.model.bank_events import BANK_EVENTS, BankEvents
from seedtrust_ops_tests.chaos.model.payments import Payment
from seedtrust_ops_tests.chaos.model.people import PEOPLE_EVENTS, People
from seedtrust_ops_tests.chaos.model.simulation import Simulation

OTHER_EVENTS = (
    "another worker runs",
    "auto-heal runs",
    "time passes",
    "the database's clock jumps forward",
    "the database's clock jumps back",
    "the bank's clock jumps forward",
)
EVENTS = (*OTHER_EVENTS, *PEOPLE_EVENTS, *BANK_EVENTS)


class History:
    """One simulation, its people and its bank."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.people = People(simulation)
        self._bank = BankEvents(simulation)

    def batch_to_process(self, index: int, wanted: list[Payment]) -> int:
        """Return a queued batch, created from `wanted` if there is none, so that a worker has something to do."""
        queued = self.simulation.sql("select id from huntington_batches where status = 'queued' order by id")
        if not queued:
            self.people.make_batch(wanted, "queued")
            return self.people.batches[-1]
        return int(queued[index % len(queued)][0])

    def events(self, index: int, seconds: float, wanted: Payment) -> dict[str, Callable[[], object]]:
        """Return the events by name, as in `EVENTS`, with these arguments."""
        simulation, clocks = self.simulation, self.simulation.clocks
        return {
            "another worker runs": lambda: simulation.process(self.people.batch(index)),
            "auto-heal runs": simulation.heal,
            "time passes": lambda: clocks.pass_time(seconds),
            "the database's clock jumps forward": lambda: clocks.jump_database(seconds),
            "the database's clock jumps back": lambda: clocks.jump_database(-seconds),
            "the bank's clock jumps forward": lambda: clocks.jump_bank(seconds),
            **self.people.events(index, wanted),
            **self._bank.events(index, self.people.pick(index)),
        }
