"""The crash cases that a copy of the product must stand: `python -m ...`, started in the copy's folder by `mutations`.

It reads from standard input where the servers are, and prints what the checker found, as JSON.
"""

import json
import sys
from pathlib import Path

from sqlalchemy.engine import make_url

import seedtrust_ops
from seedtrust_ops_tests.chaos.bank_pool import serve_fresh_banks
from seedtrust_ops_tests.chaos.crash_points import Waiting, kill
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.frozen_workers import freeze
from seedtrust_ops_tests.chaos.injection_points import Moment
from seedtrust_ops_tests.chaos.shards import Lane, Outcome, group, in_lanes
from seedtrust_ops_tests.chaos.template_batch import COMPLETED, template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import Play, strike

PLAY = Play("a copy of the product", "process")
DEATHS = (
    Moment("the request for transaction 1 is sent", 1, is_after=True),
    Moment("the request for transaction 1 is answered", 1, is_after=True),
    Moment("commit of BatchSender._record_now", 1, is_after=True),
)
WAITS = (Waiting(COMPLETED, is_committed=False, seconds=20),)
"""Longer than a restart takes: the bank commits what a killed worker asked for when another has asked again."""
FREEZES = (Moment("commit of BatchSender._begin", 1, is_after=True),)


def main() -> None:
    """Run every case."""
    here = Path.cwd()
    assert here in Path(str(seedtrust_ops.__file__)).parents, "It is not the copy that was loaded."
    told = json.load(sys.stdin)
    folder = Path(told["folder"])
    waits = WAITS if told["bank_is_late"] else ()
    with serve_fresh_banks(folder) as banks:
        ground = Ground(make_url(told["server"]), told["template"], banks, None, told["field_key"], folder)
        with template_with_batch(ground) as template:

            def run(lane: Lane, case: Moment | Waiting) -> Outcome | str:
                if isinstance(case, Waiting):
                    return kill(lane, template, case)
                if case in FREEZES:
                    return freeze(lane, template, case)
                return strike(lane, template, PLAY, case)

            all_of_them = group(PLAY.fault, in_lanes(ground, (*waits, *DEATHS, *FREEZES), run))
    cases = {one.case: [str(violation) for violation in one.violations] for one in all_of_them.outcomes}
    sys.stdout.write(json.dumps({"cases": cases, "missed": all_of_them.missed}) + "\n")


if __name__ == "__main__":
    main()
