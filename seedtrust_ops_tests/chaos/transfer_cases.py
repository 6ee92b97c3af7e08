"""One case of a batch that something befalls: a database and a bank of its own, a worker that is struck, a restart.

What strikes, and when, the parts say; the checker says what came of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.faults import Strike
from seedtrust_ops_tests.chaos.injection_points import RENEWALS, Moment, moments_of
from seedtrust_ops_tests.chaos.invariants import Ban, check
from seedtrust_ops_tests.chaos.recovery import Sessions, restart
from seedtrust_ops_tests.chaos.shards import Group, Lane, Outcome, group, in_lanes, open_lane
from seedtrust_ops_tests.chaos.tasks import Errand
from seedtrust_ops_tests.chaos.template_batch import RETURNED, prepare_bank, template_with_batch
from seedtrust_ops_tests.chaos.violations import Violation
from seedtrust_ops_tests.chaos.worker_environment import Workplace
from seedtrust_ops_tests.chaos.worker_processes import run

TRIES = 3
"""How often a case is tried whose moment does not come: a busy machine may take another way through the batch."""


@dataclass(frozen=True)
class Scene:
    """A case's own world, and the test's own view of its database."""

    place: Workplace
    banks: FreshBanks
    sessions: Sessions


@dataclass(frozen=True)
class Play:
    """What is done in each case of a fault.

    `work` is the errand that is struck, `arrange` makes the world in which it begins, and `verb` says for people what
    befell the worker.
    """

    fault: str
    work: str
    concurrency: int = 1
    arrange: Callable[[Scene], None] = lambda _: None
    strike: Strike = Strike.DIE
    verb: str = "died"
    statements: tuple[str, ...] = ()
    goes_on: bool = False
    sides: tuple[bool, ...] = (False, True)
    only: str = ""
    """How the labels of the steps begin that are struck; empty for all of them."""


@contextmanager
def scene(
    lane: Lane,
    template: str,
    *,
    first_fault: dict[str, Any] | None = None,
    **place: Any,
) -> Iterator[Scene]:
    """Set a case's world up: the batch of eight is queued, and the bank knows what to do with it."""
    with lane.database(template) as (database, sessions):
        banks = lane.banks
        prepare_bank(banks, **(first_fault or {}))
        workplace = Workplace(
            database, banks.url, banks.api_key, banks.funding_account_id, lane.ground.field_key, **place
        )
        yield Scene(workplace, banks, sessions)


def moments_in(lane: Lane, template: str, play: Play) -> list[Moment]:
    """Return every moment of the play, from a run in which nothing is struck and nothing went wrong by chance."""
    trouble = None
    for _ in range(TRIES):
        with scene(lane, template, concurrency=play.concurrency) as set_up:
            play.arrange(set_up)
            told = run(Errand(play.work, set_up.place, statements=play.statements))
        assert told is not None, "A worker that nothing befell did not come to its end."
        if (trouble := told.trouble) is None:
            moments = moments_of(told.steps, once=RENEWALS, sides=play.sides)
            return [moment for moment in moments if moment.label.startswith(play.only)]
    raise AssertionError(f"A worker that nothing befell ended in trouble {TRIES} times: {trouble}")


def strike(lane: Lane, template: str, play: Play, moment: Moment) -> Outcome | str:
    """Run one case to its end; a name alone says that the moment never came."""
    name = f"{play.verb} {moment}"
    for _ in range(TRIES):
        with scene(lane, template, concurrency=play.concurrency) as set_up:
            play.arrange(set_up)
            told = run(
                Errand(
                    play.work,
                    set_up.place,
                    moment,
                    strike=play.strike,
                    goes_on=play.goes_on,
                    statements=play.statements,
                )
            )
            if told is None or told.was_struck:
                return Outcome(name, judge(set_up))
    return name


def run_play(ground: Ground, play: Play, *, one_in: int = 1) -> Group:
    """Run every case of a play, or one in so many."""
    with template_with_batch(ground) as template:
        with open_lane(ground) as lane:
            moments = moments_in(lane, template, play)[::one_in]
        return group(play.fault, in_lanes(ground, moments, lambda lane, moment: strike(lane, template, play, moment)))


def let_the_bank_go_on(bank: SandboxBank) -> None:
    """Let the bank send back what is to come back, if it has it by now, and settle the rest."""
    for transfer in bank.ledger()["transfers"]:
        if transfer["reference"] == str(RETURNED) and transfer["status"] != "returned":
            bank.return_transfer(transfer["id"], "R03")
    bank.settle()


def judge(set_up: Scene, bans: Sequence[Ban] = ()) -> list[Violation]:
    """Restart as production does, let the bank go on, heal what came of that, and check everything."""
    restart(set_up.sessions, set_up.place)
    let_the_bank_go_on(set_up.banks.control)
    restart(set_up.sessions, set_up.place)
    return check(set_up.sessions, set_up.banks.control, quiet=True, bans=bans)
