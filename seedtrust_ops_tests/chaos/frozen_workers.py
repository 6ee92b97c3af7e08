"""Every freezing point: a worker stops at a step until its lease is over and another has done its work, and wakes up.

Meanwhile a request whose payment had not left is denied: a worker that wakes up and pays it all the same has broken
the promise, however well the bank tells one key from another.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import psutil
from sqlalchemy import text

from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.faults import Strike
from seedtrust_ops_tests.chaos.injection_points import Moment
from seedtrust_ops_tests.chaos.invariants import Ban, last_request
from seedtrust_ops_tests.chaos.recovery import restart
from seedtrust_ops_tests.chaos.shards import Group, Lane, Outcome, group, in_lanes, open_lane
from seedtrust_ops_tests.chaos.tasks import Errand
from seedtrust_ops_tests.chaos.template_batch import SENT, template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import TRIES, Play, Scene, judge, moments_in, scene
from seedtrust_ops_tests.chaos.worker_processes import PATIENCE_SECONDS, Runner, sent_on
from seedtrust_ops_tests.support.waiters import wait_until

LEASE_SECONDS = 2.0
"""Short, for it is waited out; a lease that is ended by hand would not end by the worker's own clock."""
PLAY = Play("worker freezes at each step and wakes up late", "process")


def freeze(lane: Lane, template: str, moment: Moment) -> Outcome | str:
    """Run one case to its end; a name alone says that the moment never came."""
    name = f"froze {moment}"
    for _ in range(TRIES):
        with (
            scene(lane, template, lease_seconds=LEASE_SECONDS) as set_up,
            sent_on(Errand(PLAY.work, set_up.place, moment, strike=Strike.FREEZE)) as runner,
        ):
            if not _freezes(runner):
                continue
            _wait_out_its_lease(set_up)
            ban = _deny_one_that_was_not_sent(set_up)
            restart(set_up.sessions, replace(set_up.place, lease_seconds=30))
            os.kill(runner.pid, signal.SIGCONT)
            told = runner.end()
            # What had passed the product's last look before the freeze is beyond anybody's reach.
            bans = [replace(ban, but_not=told.were_leaving)] if ban and told else []
            return Outcome(name, judge(set_up, bans))
    return name


def _freezes(runner: Runner) -> bool:
    """Wait until the worker is frozen, or has come to its end without."""
    wait_until(
        lambda: runner.has_spoken or _is_stopped(runner.pid),
        seconds=PATIENCE_SECONDS,
        what="the worker to freeze",
    )
    return not runner.has_spoken


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        # It has come to its end, and what it said is there to be heard.
        return False


def _wait_out_its_lease(set_up: Scene) -> None:
    def is_over() -> bool:
        live = "select count(*) from ops.batch_leases where token is not null and expires_at > clock_timestamp()"
        with set_up.sessions() as session:
            return not session.scalar(text(live))

    wait_until(is_over, what="the lease to end")


def _deny_one_that_was_not_sent(set_up: Scene) -> Ban | None:
    """Deny the first request whose payment has not left, though the worker be about to send it."""
    bank = set_up.banks.control
    seen = {one["reference"] for one in bank.requests()}
    waiting = [one for one in SENT if str(one) not in seen]
    if not waiting:
        return None
    denial = """
        update disbursement_requests set status = 'denied'
         where id = (select disbursement_request_id from huntington_transactions where id = :transaction_id)
    """
    with set_up.sessions.begin() as session:
        session.execute(text(denial), {"transaction_id": waiting[0]})
    return Ban("its request had been denied", last_request(bank), transaction_ids=frozenset(waiting[:1]))


def frozen_at_each_step(ground: Ground, *, one_in: int = 1) -> Group:
    """Run every case, or one in so many."""
    with template_with_batch(ground) as template:
        with open_lane(ground) as lane:
            moments = moments_in(lane, template, PLAY)[::one_in]
        return group(PLAY.fault, in_lanes(ground, moments, lambda lane, moment: freeze(lane, template, moment)))


def run_all(ground: Ground) -> Iterator[Group]:
    """Run all of this part."""
    yield frozen_at_each_step(ground)
