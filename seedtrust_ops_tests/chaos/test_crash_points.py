"""Whatever dies, freezes or fails at whichever step: money moves once, and SeedTrust believes what the bank says."""

import pytest

from seedtrust_ops_tests.chaos.crash_points import PLAYS as DEATHS
from seedtrust_ops_tests.chaos.database_faults import PLAYS as DATABASE_PLAYS
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.expectations import must_be_clean
from seedtrust_ops_tests.chaos.job_crash_points import WORKS, OfficeWork, run_work
from seedtrust_ops_tests.chaos.transfer_cases import Play, run_play

# Many cases a test, on a machine that may be busy.
pytestmark = [pytest.mark.timeout(900), pytest.mark.long_chaos]


def _share(play: Play) -> int:
    """Of the longest plays one case in so many is run here; `make chaos` runs them all."""
    return 10 if play.statements else 3 if play.concurrency > 1 or play.only else 1


@pytest.mark.parametrize("play", [*DEATHS, *DATABASE_PLAYS], ids=lambda play: play.fault.replace(" ", "-"))
def test_money_moves_once_and_books_agree_whatever_befalls_a_worker_at_any_step(ground: Ground, play: Play) -> None:
    must_be_clean(run_play(ground, play, one_in=_share(play)))


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.work)
def test_requests_are_approved_reports_made_and_letters_sent_whichever_step_a_worker_dies_at(
    ground: Ground, work: OfficeWork
) -> None:
    must_be_clean(run_work(ground, work, one_in=4 if work.work == "report" else 2))
