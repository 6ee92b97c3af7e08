"""Plays the demo's scenes until every transfer is settled, or the deadline has passed; it shows nothing itself.

Each round looks at the world and lets every stagehand act whose moment has come.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select

from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED
from seedtrust_ops.domain.transfers.preflight import is_false_failure
from seedtrust_ops.sandbox.demo.disruptions import (
    Acts,
    halt_in_the_middle,
    kill_in_the_middle,
    reject_one,
    return_an_old_one,
    run_by_hand,
)
from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.demo.scenarios import HALTED, KILLED, REJECTED, TWO_RUNS, Scene
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

ROUND_SECONDS = 0.4


@dataclass(frozen=True)
class Standing:
    """How a scene's batch stands: how many of its transfers have each status, and why some failed."""

    scene: Scene
    status: str
    counts: dict[str, int]
    reasons: list[str]

    @property
    def is_settled(self) -> bool:
        """Whether nothing about it is open any more."""
        return self.status in FINISHED and not self.counts.keys() & {"pending", "processing", "submitted", "in doubt"}


@dataclass(frozen=True)
class Outcome:
    """How the play ended: `trouble` is None where every scene settled in time."""

    standings: list[Standing]
    trouble: str | None


def play(
    stage: Stage,
    scenes: Sequence[Scene],
    *,
    say: Callable[[str], None],
    show: Callable[[list[Standing]], None],
    deadline_seconds: float,
) -> Outcome:
    """Play the scenes; `say` is told what happens, `show` how all batches stand after each round."""
    deadline = time.monotonic() + deadline_seconds
    acting = _cast(stage, scenes)
    try:
        while True:
            acting = [acts for acts in acting if _go_on(acts, say)]
            standings = [_standing(stage, scene) for scene in scenes]
            show(standings)
            if not acting and all(standing.is_settled for standing in standings):
                return Outcome(standings, None)
            if (code := stage.worker.exit_code()) is not None:
                return Outcome(standings, f"The worker ended with code {code}.")
            if time.monotonic() >= deadline:
                waiting = [str(one.scene.batch.batch_id) for one in standings if not one.is_settled]
                stuck = f"batches {', '.join(waiting)} are not settled" if waiting else "every batch is settled"
                unmet = f", and {len(acting)} interventions never found their moment" if acting else ""
                return Outcome(standings, f"After {deadline_seconds:.0f} s {stuck}{unmet}.")
            time.sleep(ROUND_SECONDS)
    finally:
        for acts in acting:
            acts.close()


def _cast(stage: Stage, scenes: Sequence[Scene]) -> list[Acts]:
    by_name = {scene.name: scene for scene in scenes}
    halted = by_name[HALTED.name]
    acting = [
        halt_in_the_middle(stage, halted, [scene for scene in scenes if scene not in (halted, by_name["legacy"])]),
        return_an_old_one(stage),
    ]
    for plot, act in ((KILLED, kill_in_the_middle), (TWO_RUNS, run_by_hand), (REJECTED, reject_one)):
        if plot.name in by_name:
            acting.append(act(stage, by_name[plot.name]))
    return acting


def _go_on(acts: Acts, say: Callable[[str], None]) -> bool:
    """Let a stagehand act; return whether it has more to do."""
    try:
        while (sentence := next(acts)) is not None:
            say(sentence)
    except StopIteration:
        return False
    return True


def _standing(stage: Stage, scene: Scene) -> Standing:
    of_batch = HuntingtonTransaction.batch_id == scene.batch.batch_id
    in_doubt = is_false_failure(HuntingtonTransaction)
    with stage.sessions() as session:
        status = session.scalars(select(HuntingtonBatch.status).where(HuntingtonBatch.id == scene.batch.batch_id)).one()
        rows = session.execute(
            select(HuntingtonTransaction.status, in_doubt.label("in_doubt"), func.count().label("number"))
            .where(of_batch)
            .group_by(HuntingtonTransaction.status, in_doubt)
        ).all()
        reasons = session.scalars(
            select(HuntingtonTransaction.failure_reason)
            .where(of_batch, or_(HuntingtonTransaction.status == "failed", HuntingtonTransaction.status == "returned"))
            .order_by(HuntingtonTransaction.id)
        ).all()
    counts = {("in doubt" if row.in_doubt else row.status): int(row.number) for row in rows}
    return Standing(scene, status, counts, [reason for reason in reasons if reason])
