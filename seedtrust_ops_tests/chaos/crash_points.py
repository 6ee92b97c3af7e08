"""Every crash point of processing and healing: a worker dies just before and just after each of its I/O steps.

Every step, not a sample: a run in which nothing happens says which there are. What a restart then makes of it is the
product's, and whether that is right the checker's.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from seedtrust_ops_tests.building import Company
from seedtrust_ops_tests.chaos.batch_of_eight import (
    ACCEPTED,
    COMPLETED,
    LATE,
    REFUSED,
    RESET,
    RETURNED,
    REUSED,
    template_with_batch,
)
from seedtrust_ops_tests.chaos.errands import Errand
from seedtrust_ops_tests.chaos.fresh_banks import FreshBanks
from seedtrust_ops_tests.chaos.ground import Ground
from seedtrust_ops_tests.chaos.lanes import Group, Outcome, group, in_lanes
from seedtrust_ops_tests.chaos.moments import Moment, moments_of
from seedtrust_ops_tests.chaos.restarting import end_leases
from seedtrust_ops_tests.chaos.runners import run, sent_on
from seedtrust_ops_tests.chaos.transfer_cases import RETURN_CODE, Play, Scene, judge, scene, steps_of, strike
from seedtrust_ops_tests.waiting import wait_until

RENEWALS = ("commit of _keep", "commit of _keep: watch")
"""Steps that come once a second: the first of them stands for all."""
LEGACY_CENTS = 4_321
SENT = (COMPLETED, ACCEPTED, RETURNED, REFUSED, LATE, RESET, REUSED)


def leave_everything_open(set_up: Scene) -> None:
    """Let a worker die when all is sent and nothing recorded, and the bank go on: it settles, and sends one back.

    Beside that batch there is one of the legacy worker's, with a failure that was none.
    """
    place = set_up.place
    all_at_once = Errand("process", place.with_concurrency(8), Moment("commit of BatchSender._record_now", 1, False))
    assert run(all_at_once) is None, "The worker that was to leave everything open did not die."
    end_leases(set_up.sessions)
    company = Company(set_up.sessions, place.cipher)
    legacy = company.batch(case=company.case(), status="completed_with_errors")
    transaction_id = company.transaction(
        legacy,
        company.request(company.case(), LEGACY_CENTS),
        LEGACY_CENTS,
        status="failed",
        failure_reason="timeout: no answer from the bank",
    )
    control = set_up.banks.control
    control.plant_transfer(str(transaction_id), LEGACY_CENTS)
    control.settle()
    control.return_reference(str(RETURNED), RETURN_CODE)


PLAYS = (
    Play("worker dies at each step, one request at a time", "process"),
    Play("worker dies at each step, eight requests at once", "process", concurrency=8),
    Play("healing dies at each step", "heal", arrange=leave_everything_open),
)


def run_play(ground: Ground, play: Play) -> Group:
    """Run every case of a play."""
    with template_with_batch(ground) as template:
        moments = moments_of(steps_of(ground, template, ground.banks, play), once=RENEWALS)
        return group(
            play.fault,
            in_lanes(ground, moments, lambda banks, moment: strike(ground, template, banks, play, moment)),
        )


@dataclass(frozen=True)
class Waiting:
    """A worker that is killed while it waits for the answer to one request, before or after the bank has committed."""

    transaction_id: int
    is_committed: bool

    def __str__(self) -> str:
        """As a test's failure names it."""
        side = "after" if self.is_committed else "before"
        return f"killed while it waited for the answer to transaction {self.transaction_id}, {side} the bank's commit"


def killed_while_waiting(ground: Ground) -> Group:
    """Kill a worker (SIGKILL) in each of its waits for an answer."""
    cases = [Waiting(one, is_committed) for one in SENT for is_committed in (False, True)]
    with template_with_batch(ground) as template:
        return group(
            "worker is killed while it waits for an answer",
            in_lanes(ground, cases, lambda banks, case: _kill(ground, template, banks, case)),
        )


def _kill(ground: Ground, template: str, banks: FreshBanks, case: Waiting) -> Outcome:
    fault = {
        "kind": "answer_late_after_commit" if case.is_committed else "answer_late_before_commit",
        "method": "POST",
        "reference": str(case.transaction_id),
        # Before the worker loses patience, and before the restart is over.
        "seconds": 0.3,
    }
    with scene(ground, template, banks, first_fault=fault) as set_up:
        with sent_on(Errand("process", set_up.place)) as runner:
            wait_until(
                lambda: any(one["reference"] == str(case.transaction_id) for one in banks.control.requests()),
                what=f"the request for transaction {case.transaction_id}",
            )
            os.kill(runner.pid, signal.SIGKILL)
        return Outcome(str(case), judge(set_up))


def run_all(ground: Ground) -> Iterator[Group]:
    """Run all of this part."""
    for play in PLAYS:
        yield run_play(ground, play)
    yield killed_while_waiting(ground)
