"""Every crash point of processing and healing: a worker dies just before and just after each of its I/O steps.

Every step, not a sample: a run in which nothing happens says which there are. What a restart then makes of it is the
product's, and whether that is right the checker's.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from seedtrust_ops.sandbox.bank.control_client import SeenRequest
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.injection_points import Moment
from seedtrust_ops_tests.chaos.recovery import end_leases, restart
from seedtrust_ops_tests.chaos.shards import Group, Lane, Outcome, group, in_lanes
from seedtrust_ops_tests.chaos.tasks import Errand
from seedtrust_ops_tests.chaos.template_batch import SENT, template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import TRIES, Play, Scene, judge, let_the_bank_go_on, run_play, scene
from seedtrust_ops_tests.chaos.worker_processes import PATIENCE_SECONDS, run, sent_on
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

LEGACY_CENTS = 4_321


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
    set_up.banks.control.plant_transfer(str(transaction_id), LEGACY_CENTS)
    let_the_bank_go_on(set_up.banks.control)


PLAYS = (
    Play("worker dies at each step, one request at a time", "process"),
    Play("worker dies at each step, eight requests at once", "process", concurrency=8),
    Play("healing dies at each step", "heal", arrange=leave_everything_open),
)


@dataclass(frozen=True)
class Waiting:
    """A worker that is killed while it waits for the answer to one request, before or after the bank has committed.

    The bank takes so many seconds over it: where it has not committed yet, it does so when others are at work already.
    """

    transaction_id: int
    is_committed: bool
    seconds: float = 1

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
            in_lanes(ground, cases, lambda lane, case: kill(lane, template, case)),
        )


def kill(lane: Lane, template: str, case: Waiting) -> Outcome | str:
    """Run one case to its end; a name alone says that the worker ended before, as it may on a busy machine."""
    outcome: Outcome | str = ""
    for _ in range(TRIES):
        outcome = _kill(lane, template, case)
        if isinstance(outcome, Outcome):
            break
    return outcome


def _kill(lane: Lane, template: str, case: Waiting) -> Outcome | str:
    fault = {
        "kind": "answer_late_after_commit" if case.is_committed else "answer_late_before_commit",
        "method": "POST",
        "reference": str(case.transaction_id),
        "seconds": case.seconds,
    }
    with scene(lane, template, first_fault=fault) as set_up:
        with sent_on(Errand("process", set_up.place)) as runner:
            wait_until(
                lambda: runner.has_spoken or _first_request(set_up, case.transaction_id) is not None,
                seconds=PATIENCE_SECONDS,
                what=f"the request for transaction {case.transaction_id}",
            )
            if runner.has_spoken:
                return f"{case}: the worker came to its end before, {runner.end()}"
            os.kill(runner.pid, signal.SIGKILL)
        restart(set_up.sessions, set_up.place)
        wait_until(
            lambda: _is_answered(_first_request(set_up, case.transaction_id)),
            seconds=case.seconds + PATIENCE_SECONDS,
            what="the bank to be done with what the killed worker had asked for",
        )
        return Outcome(str(case), judge(set_up))


def _first_request(set_up: Scene, transaction_id: int) -> SeenRequest | None:
    requests = set_up.banks.control.requests()
    return next((one for one in requests if one["reference"] == str(transaction_id)), None)


def _is_answered(request: SeenRequest | None) -> bool:
    return request is not None and request["status"] is not None


def run_all(ground: Ground) -> Iterator[Group]:
    """Run all of this part."""
    for play in PLAYS:
        yield run_play(ground, play)
    yield killed_while_waiting(ground)
